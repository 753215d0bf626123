"""Index an image that somebody else pushed: for lazy loading without a build."""

from typing import Literal

from prefect import flow
from prefect.runtime import flow_run

from soci_pipeline.errors import InvalidInput
from soci_pipeline.publish.existing.index import IndexedImage
from soci_pipeline.publish.request import VerifyMode
from soci_pipeline.publish.workspace import workspace
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import Settings
from soci_pipeline.soci.records import SociOptions
from tasks.aws import connected
from tasks.index_existing import index_existing
from tasks.run_log import run_log


@flow(name="index-image", flow_run_name="{reference}")
def index_image(
    reference: str,
    suffix: str = "",
    soci: SociOptions = SociOptions(),  # noqa: B008 - it is frozen
    verify: Literal["sample", "all", "off"] = "sample",
) -> IndexedImage:
    """Give every platform of an image a SOCI index, verify the result, and move the tag to it.

    Args:
        reference: The image, with a tag or a digest. A digest gets an indexed image and no tag.
        suffix: Leave the tag where it is, and write TAG followed by this instead; for tags that must not move.
        soci: The sizes; reuse_from names a tag whose zTOCs are used again. The version is always v2.
        verify: How much of what was pushed is read again before the tag moves.

    """
    image = ImageReference.parse(reference)
    if image.target is None:
        raise InvalidInput(f"{image} has neither tag nor digest", advice="Write it as registry/repository:tag.")
    settings = Settings.from_environment()
    name = f"index-{flow_run.get_id()}"
    with run_log() as log, workspace(settings.work.folder, name) as folder, connected(image, settings) as client:
        found = index_existing(
            client, image, settings, suffix=suffix, soci=soci, verify=VerifyMode(verify), folder=folder
        )
        log.info("%s is %s at %s", image, "indexed" if found.changed else "as it was", found.index)
        return found
