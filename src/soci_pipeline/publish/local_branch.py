"""The branch of one platform in this process: build, import, index, and push by digest, with retries of each step."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import TypeVar

from soci_pipeline.builders.step_lines import StepLineLog
from soci_pipeline.git.sign_in import GitCredentials
from soci_pipeline.log import LOGGER, logger
from soci_pipeline.oci.layout import Layout
from soci_pipeline.progress import meter
from soci_pipeline.publish import branch
from soci_pipeline.publish.branch import Branch, Uploaded
from soci_pipeline.publish.secret_places import read_here, secret_files
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.retry import Deadline, full_jitter, with_retries
from soci_pipeline.soci.index.convert import Conversion
from soci_pipeline.soci.index.records import PlatformImage

_STEP_SECONDS = 6 * 3600.0
_Result = TypeVar("_Result")


class _StepAttempts:
    """The same policy as the tasks of the flows: up to four attempts if the error is temporary."""

    attempts = 4

    def backoff(self, attempt: int) -> float:
        return full_jitter(attempt, first=2, most=8)


def retried(step: Callable[[], _Result]) -> _Result:
    """Repeat a step while it fails with a temporary error."""
    return with_retries(step, _StepAttempts(), Deadline(_STEP_SECONDS))


def imported_image(work: Branch, credentials: GitCredentials | None) -> Layout:
    """Build the platform's image, verify it, and import it into an OCI layout."""
    tree = retried(lambda: branch.check_out(work, credentials=credentials))
    return retried(lambda: branch.import_built(work, _built(work, tree)))


def _built(work: Branch, tree: Path) -> branch.Built:
    token = LOGGER.set(StepLineLog(logger()))
    try:
        with secret_files(work.request.build_secrets, work.folder, read_here) as secrets:
            return branch.build(work, tree, secrets=secrets)
    finally:
        LOGGER.reset(token)


def indexed_image(work: Branch, layout: Layout, client: RegistryClient | None) -> Conversion:
    """Index the image's layers; ``client`` allows reusing the zTOCs of an earlier image."""
    conversion = retried(lambda: branch.index(work, layout, client))
    for image in conversion.images:
        logger().info("%s", branch.describe(image))
    return conversion


def pushed_image(work: Branch, layout: Layout, client: RegistryClient) -> PlatformImage:
    """Index the image while its layers are uploaded, then push the rest by digest."""
    with _uploading(work, layout, client) as upload:
        conversion = indexed_image(work, layout, client)
        before = upload.result()
        image = retried(lambda: branch.push(work, conversion, client, before=before))
    logger().info("pushed %s@%s", work.request.image, image.manifest.digest)
    return image


@contextlib.contextmanager
def _uploading(work: Branch, layout: Layout, client: RegistryClient) -> Iterator[Future[Uploaded]]:
    """Upload the layers in a thread; an exception in the block ends the upload."""
    stop = threading.Event()
    with meter(f"upload {work.request.platform}") as advance, ThreadPoolExecutor(1) as pool:
        done = 0

        def moved(now: int, _total: int) -> None:
            nonlocal done
            advance(now - done)
            done = now

        upload = partial(branch.upload_layers, work, layout, client, stop, moved)
        future = pool.submit(copy_context().run, retried, upload)
        try:
            yield future
        except BaseException:
            stop.set()
            raise
