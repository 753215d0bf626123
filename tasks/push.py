"""The push by digest: layers while they are being indexed, everything else afterwards."""

import threading
import time
from collections.abc import Callable
from typing import cast
from uuid import UUID

from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from soci_pipeline.oci.layout import Layout
from soci_pipeline.publish import branch
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.convert import Conversion
from soci_pipeline.soci.records import PlatformImage
from tasks.policies import STEP
from tasks.run_log import run_log

_UPDATE_SECONDS = 2.0


@task(name="upload layers", **STEP)
def upload_layers(
    work: branch.Branch, layout: Layout, client: RegistryClient, stop: threading.Event
) -> branch.Uploaded:
    """The layers of the imported image, beside the step that indexes them."""
    with run_log() as log:
        report = _progress(f"Upload of {work.request.platform}")
        done = branch.upload_layers(work, layout, client, stop, report)
        log.info("uploaded %d bytes in %d blobs; %d bytes were there", done.sent, done.blobs_sent, done.skipped)
        return done


@task(name="push", **STEP)
def push(work: branch.Branch, conversion: Conversion, client: RegistryClient, before: branch.Uploaded) -> PlatformImage:
    """The indexed image under its digest; no tag."""
    with run_log() as log:
        image = branch.push(work, conversion, client, before=before)
        log.info("pushed %s@%s", work.request.image, image.manifest.digest)
        return image


def _progress(description: str) -> Callable[[int, int], None]:
    artifact = cast("UUID", create_progress_artifact(progress=0.0, description=description))
    shown = 0.0
    before = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal shown, before
        percent = 100.0 * done / total if total else 100.0
        now = time.monotonic()
        if percent == shown or (percent < 100.0 and now - before < _UPDATE_SECONDS):
            return
        shown, before = percent, now
        update_progress_artifact(artifact, round(percent, 1))

    return report
