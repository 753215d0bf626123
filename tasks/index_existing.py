"""Index an image that is already in a registry; its layers are streamed and not stored."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from prefect import task

from soci_pipeline.publish.registries import prepare
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.reindex.index import IndexedImage
from soci_pipeline.reindex.index import index_existing as index_image
from soci_pipeline.reindex.settings import IndexSettings
from soci_pipeline.settings import Settings
from soci_pipeline.soci.index.records import SociOptions
from soci_pipeline.soci.ztoc.store import CacheFolder
from soci_pipeline.verification.mode import VerifyMode
from tasks.aws import ecr_session
from tasks.policies import STEP
from tasks.run_log import run_log
from tasks.tags import check_own_state, tag_lock


@task(name="index existing", task_run_name="index existing", **STEP)
def index_existing(
    client: RegistryClient,
    reference: ImageReference,
    settings: Settings,
    *,
    suffix: str = "",
    dry_run: bool = False,
    soci: SociOptions | None = None,
    verify: VerifyMode = VerifyMode.SAMPLE,
    folder: Path | None = None,
    limit: Callable[[ImageReference], AbstractContextManager[None]] = tag_lock,
) -> IndexedImage:
    """The result; an image that is already indexed with these settings is not changed.

    The tag moves under the limit that publications of the image hold too.
    """
    with run_log():
        chosen = IndexSettings(
            soci=soci or SociOptions(),
            suffix=suffix,
            mutability=prepare(reference, settings, aws=ecr_session(settings)),
            verify=verify,
            jobs=settings.work.jobs,
            dry_run=dry_run,
            folder=folder,
        )
        ztocs = CacheFolder(settings.work.ztoc_cache)
        return index_image(
            client, reference, chosen, ztocs=ztocs, tag_lock=partial(limit, reference), confirm=check_own_state
        )
