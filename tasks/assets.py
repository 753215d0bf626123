"""Record a published image as a Prefect asset: an event that can trigger automations."""

from typing import Any

from prefect.assets import Asset, AssetProperties, add_asset_metadata, materialize
from prefect.cache_policies import NO_CACHE

from soci_pipeline.publish.web_page import web_page
from soci_pipeline.registry.reference import ImageReference
from tasks.run_log import run_log
from tasks.summary import Shown


def asset_key(image: ImageReference) -> str:
    """Return the key of an image's asset; without brackets (of an IPv6 host), which Prefect does not accept."""
    return f"oci://{image.name}".replace("[", "").replace("]", "")


def record_asset(shown: Shown) -> None:
    """Report the image as materialized: the event is `prefect.asset.materialization.succeeded`."""
    image, published = shown.image, shown.published
    page = web_page(image, published.index)
    properties = AssetProperties(name=image.name, **({} if page is None else {"url": page}))
    asset = Asset(key=asset_key(image), properties=properties)

    @materialize(asset, by="soci-pipeline", name="record asset", task_run_name="record asset", cache_policy=NO_CACHE)
    def record() -> None:
        with run_log() as log:
            add_asset_metadata(asset, metadata(shown))
            log.info("recorded the asset %s at %s", asset.key, published.index)

    record()


def metadata(shown: Shown) -> dict[str, Any]:
    """Return the image's metadata in the event."""
    published, source = shown.published, shown.source
    facts: dict[str, Any] = {
        "reference": published.reference,
        "digest": str(published.index),
        "tags": list(published.tags),
        "platforms": [str(each.platform) for each in published.platforms],
        "verified": published.verified,
        "checked": dict(shown.report.checked) if shown.report else {},
    }
    return facts if source is None else facts | {"source": source.url, "commit": source.commit}
