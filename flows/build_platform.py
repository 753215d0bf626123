"""The branch of one platform: every step in one flow run, since starting processes is what takes time."""

import threading

from prefect import flow
from prefect.runtime import flow_run

from soci_pipeline.machine.workspace import workspace
from soci_pipeline.publish.branch import Branch
from soci_pipeline.publish.leftovers import REMOVERS
from soci_pipeline.publish.request import BranchRequest
from soci_pipeline.settings import Settings
from soci_pipeline.soci.index.records import PlatformImage
from tasks.artifacts import show_branch
from tasks.aws import connected
from tasks.build import build
from tasks.failures import explained
from tasks.import_image import import_image
from tasks.index import index
from tasks.push import push, upload_layers
from tasks.records import write_record
from tasks.run_log import run_log
from tasks.run_names import branch_name
from tasks.source import fetch_source


@flow(name="build-platform", flow_run_name=branch_name)
@explained
def build_platform(branch: BranchRequest) -> PlatformImage:
    """Build one commit for one platform, index it, and push it by digest.

    Args:
        branch: What the publication asks of this platform. Publications start this flow themselves.

    """
    settings = Settings.from_environment()
    name = f"{branch.platform.slug}-{flow_run.get_id()}"
    with (
        run_log(),
        workspace(settings.work.folder, name, REMOVERS) as folder,
        connected(branch.image, settings) as client,
    ):
        work = Branch(branch, folder, settings)
        layout = import_image(work, build(work, fetch_source(work)))
        # Indexing changes manifests and never layers, so these can go up meanwhile.
        stop = threading.Event()
        upload = upload_layers.submit(work, layout, client, stop)
        try:
            conversion = index(work, layout, client)
        except BaseException:
            stop.set()
            raise
        image = push(work, conversion, client, upload.result())
        write_record(image)
        show_branch(branch.image, image)
        return image
