"""Move tags, one publication of an image at a time.

Registries have no compare-and-swap for tags, so a Prefect concurrency limit serves as a lock. The limit is created here
and used strictly: otherwise Prefect ignores a limit that does not exist.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from uuid import UUID

from prefect import task
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.runtime import flow_run

from soci_pipeline.errors import DeadlineExceeded, StackError
from soci_pipeline.log import logger
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.publish.tags import TagRecord
from soci_pipeline.publish.target import Target
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.soci.index.records import PlatformImage
from tasks.outage import ERRORS, retry_during_outage
from tasks.policies import STEP
from tasks.run_log import run_log

_WAIT_SECONDS = 900.0
# The limit is released this long after its holder is killed; a live one renews the lease.
_LEASE_SECONDS = 60.0


def limit_of(image: ImageReference) -> str:
    """Return the name of the image's concurrency limit; a hash, since Prefect's names cannot contain slashes."""
    return f"soci-tags-{hashlib.sha256(image.name.encode()).hexdigest()[:16]}"


@contextlib.contextmanager
def tag_lock(image: ImageReference) -> Iterator[None]:
    """Lock the image's tags against other publications; raise `DeadlineExceeded` after a quarter of an hour.

    Raises `StackError` if the server no longer counts this run as running.
    """
    name, done = limit_of(image), False
    retry_during_outage(lambda: _make_limit(name))
    try:
        with contextlib.ExitStack() as stack:
            try:
                retry_during_outage(lambda: _enter(stack, name))
            except TimeoutError as error:
                raise DeadlineExceeded(
                    f"other publications of {image} locked its tags for {_WAIT_SECONDS:g} s", temporary=True
                ) from error
            check_own_state()
            yield
            done = True
    except ERRORS as error:
        if not done:
            raise
        # The work is done, and the limit is released when its lease expires.
        logger().warning("cannot release the limit %s (%s)", name, type(error).__name__)


def _enter(stack: contextlib.ExitStack, name: str) -> None:
    try:
        stack.enter_context(
            concurrency(name, timeout_seconds=_WAIT_SECONDS, lease_duration=_LEASE_SECONDS, strict=True)
        )
    except ConcurrencySlotAcquisitionError as error:
        # Prefect wraps the error of the server or the network.
        if isinstance(error.__cause__, ERRORS):
            raise error.__cause__ from None
        raise


def check_own_state() -> None:
    """Raise `StackError` unless the server counts the current flow run as running.

    A run whose heartbeats were lost is marked Crashed although it is alive, one being cancelled may not have noticed
    yet, one that was deleted is no longer wanted, and one that went back to its queue may have been started elsewhere.
    Outside a flow run nothing is checked.
    """
    run_id = flow_run.get_id()
    if run_id is None:
        return
    with get_client(sync_client=True) as client:
        try:
            found = retry_during_outage(lambda: client.read_flow_run(UUID(run_id)))
        except ObjectNotFound as error:
            raise _stopped("was deleted") from error
    if found.state is None or not found.state.is_running():
        raise _stopped(f"is {'unknown' if found.state is None else found.state.name}, not Running")
    if found.run_count > flow_run.get_run_count():
        raise _stopped("was started again")


def _stopped(what: str) -> StackError:
    return StackError(
        f"stopped before any tag moved: on the Prefect server, this run {what}",
        advice="Publish again; uploaded content is reused. The page of this run shows who ended it.",
    )


def _make_limit(name: str) -> None:
    """Create the limit if missing; a duplicate would be a conflict, which the server logs with a traceback."""
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            with contextlib.suppress(ObjectAlreadyExists):  # another publication has created it in the meantime
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1, active=True))


@task(name="tag", task_run_name="tag", **STEP)
def tag(target: Target, index: Descriptor, images: Sequence[PlatformImage]) -> tuple[TagRecord, ...]:
    """Point the tags at the joined index, and each platform's own tags at its image where they are asked for."""
    with run_log(), tag_lock(target.image):
        return target.move_tags(index, images, confirm=check_own_state)
