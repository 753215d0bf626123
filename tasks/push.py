"""The push by digest: layers while they are being indexed, everything else afterwards."""

import threading

from prefect import task

from soci_pipeline.oci.layout import Layout
from soci_pipeline.publish import branch
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.index.convert import Conversion
from soci_pipeline.soci.index.records import PlatformImage
from soci_pipeline.text import counted, sized
from tasks.policies import STEP
from tasks.progress import Progress
from tasks.run_log import run_log


@task(name="upload layers", task_run_name="upload layers {work.request.platform}", **STEP)
def upload_layers(
    work: branch.Branch, layout: Layout, client: RegistryClient, stop: threading.Event
) -> branch.Uploaded:
    """The layers of the imported image, beside the step that indexes them."""
    with run_log() as log:
        progress = Progress(f"Upload of {work.request.platform}")
        done = branch.upload_layers(work, layout, client, stop, progress.report)
        blobs = counted(done.blobs_sent, "blob")
        log.info("uploaded %s in %s; %s already there", sized(done.sent), blobs, sized(done.skipped))
        return done


@task(name="push", task_run_name="push {work.request.platform}", **STEP)
def push(work: branch.Branch, conversion: Conversion, client: RegistryClient, before: branch.Uploaded) -> PlatformImage:
    """The indexed image under its digest; no tag."""
    with run_log() as log:
        image = branch.push(work, conversion, client, before=before)
        log.info("pushed %s@%s", work.request.image, image.manifest.digest)
        return image
