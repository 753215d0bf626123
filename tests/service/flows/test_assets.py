"""A published image is an asset on the server, and an automation starts a rollout with it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import get_client

from local_stack.prefect_server import PrefectServer
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import OCI_MANIFEST
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.publish.records import PublishedImage
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.soci.index.records import PlatformImage
from soci_pipeline.verification.verify import VerificationReport
from tasks.assets import asset_key, record_asset
from tasks.summary import Shown
from tests.support.images import AMD64

EXAMPLE = Path(__file__).resolve().parents[3] / "deployments" / "automations" / "examples" / "start-rollout.yaml"
DIGEST = Digest(f"sha256:{'f' * 64}")


@flow(name="publishes-for-the-asset")
def publishing(shown: Shown) -> None:
    record_asset(shown)


@flow(name="rolls-out")
def rolling_out(image: str, verified: bool) -> None:
    """Never run: only its runs' parameters matter."""


def shown(repository: str) -> Shown:
    image = ImageReference.parse(f"registry.example.com/{repository}")
    branch = PlatformImage(
        platform=AMD64, manifest=Descriptor(media_type=OCI_MANIFEST, digest=DIGEST, size=1), layers=()
    )
    reference = str(image.with_digest(DIGEST))
    published = PublishedImage(
        reference=reference, index=DIGEST, platforms=(branch,), tags=("1.0", "latest"), verified=True
    )
    return Shown(image, published, VerificationReport(ok=True, checked={"ztocs": 3}), None, seconds=1.0)


def asked(server: PrefectServer, path: str, body: dict[str, Any]) -> Any:
    with PrefectApi(server.api_url) as api:
        return api.ask("POST", path, body)


def until(look: Callable[[], list[Any]]) -> list[Any]:
    for _ in range(240):
        if found := look():
            return found
        time.sleep(0.25)
    pytest.fail("it did not come within a minute")


def events(server: PrefectServer, key: str) -> list[Any]:
    wanted = {"event": {"prefix": ["prefect.asset."]}, "resource": {"id": [key]}}
    return list(asked(server, "/events/filter", {"filter": wanted, "limit": 50})["events"])


def test_a_published_image_is_an_asset_with_digest_tags_and_verification(prefect: PrefectServer) -> None:
    image = shown(f"team/asset-{uuid4().hex[:8]}")
    key = asset_key(image.image)
    publishing(image)
    (event,) = until(lambda: events(prefect, key))
    assert key == f"oci://{image.image.registry}/{image.image.repository}"
    assert event["event"] == "prefect.asset.materialization.succeeded"
    assert event["payload"] == {
        "reference": f"{image.image.name}@{DIGEST}",
        "digest": DIGEST,
        "tags": ["1.0", "latest"],
        "platforms": ["linux/amd64"],
        "verified": True,
        "checked": {"ztocs": 3},
    }


def test_the_example_automation_starts_a_rollout_with_the_digest(prefect: PrefectServer) -> None:
    mark = uuid4().hex[:8]
    image = shown(f"team/rollout-{mark}")
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(rolling_out), f"rollout-{mark}")
    fields = yaml.safe_load(EXAMPLE.read_text().replace("{{ rollout_deployment }}", str(deployment)))
    fields["name"] += mark
    fields["trigger"]["match"] = {"prefect.resource.id": asset_key(image.image)}
    automation = asked(prefect, "/automations/", fields)["id"]
    try:
        # The server reads a new automation a moment later.
        time.sleep(5)
        publishing(image)
        query = {"deployments": {"id": {"any_": [str(deployment)]}}}
        (run,) = until(lambda: list(asked(prefect, "/flow_runs/filter", query)))
        assert run["parameters"] == {"image": f"{image.image.name}@{DIGEST}", "verified": True}
    finally:
        # Prefect's client repeats what a busy server answers with 503.
        with get_client(sync_client=True) as client:
            client.delete_automation(UUID(str(automation)))
            client.delete_deployment(UUID(str(deployment)))


def test_a_registry_by_its_ipv6_address_has_a_key_that_prefect_takes() -> None:
    assert asset_key(ImageReference.parse("[::1]:5000/team/app")) == "oci://::1:5000/team/app"
