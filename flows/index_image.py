"""Index an image that somebody else pushed: for lazy loading without a build."""

import time

from prefect import flow
from prefect.runtime import flow_run

from soci_pipeline.machine.workspace import workspace
from soci_pipeline.publish.leftovers import REMOVERS
from soci_pipeline.publish.records import PublishedImage
from soci_pipeline.reindex.index import IndexedImage
from soci_pipeline.reindex.parameters import IndexParameters
from soci_pipeline.settings import Settings
from soci_pipeline.verification.mode import VerifyMode
from tasks.artifacts import show_indexing_plan, show_publication
from tasks.assets import record_asset
from tasks.aws import connected
from tasks.failures import explained
from tasks.form import form
from tasks.index_existing import index_existing
from tasks.run_log import run_log
from tasks.run_names import named_after
from tasks.summary import Shown


@flow(name="index-image", flow_run_name=named_after("reference"))
@explained
@form(IndexParameters)
def index_image(request: IndexParameters) -> IndexedImage:
    """Give every platform of an image a SOCI index, verify the result, and move the tag to it."""
    begun = time.monotonic()
    image, settings = request.reference, Settings.from_environment()
    name = f"index-{flow_run.get_id()}"
    with (
        run_log() as log,
        workspace(settings.work.folder, name, REMOVERS) as folder,
        connected(image, settings) as client,
    ):
        found = index_existing(
            client,
            image,
            settings,
            suffix=request.suffix,
            soci=request.soci,
            verify=request.verify,
            dry_run=request.dry_run,
            folder=folder,
        )
        if found.dry_run:
            show_indexing_plan(image, found)
            return found
        log.info("%s is %s at %s", image, "indexed" if found.changed else "unchanged", found.index)
        indexed = PublishedImage(
            reference=found.reference,
            index=found.index,
            platforms=found.platforms,
            tags=tuple(record.tag for record in found.tags),
            verified=request.verify is not VerifyMode.OFF,
        )
        shown = Shown(image, indexed, report=None, source=None, seconds=time.monotonic() - begun)
        show_publication(shown)
        if found.changed:
            record_asset(shown)
        return found
