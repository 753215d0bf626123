"""Check whether a branch will be run: the work pool of each platform, and the workers that poll it."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import WorkerFilter, WorkerFilterStatus
from prefect.exceptions import ObjectNotFound

from soci_pipeline.errors import InvalidInput, NoWorker
from soci_pipeline.log import logger
from soci_pipeline.oci.platform import Platform
from tasks.clock import Clock
from tasks.outage import retry_during_outage

_LOOK_SECONDS = 2.0
_LATE_BEAT_SECONDS = 30.0  # a live worker may look dead for one heartbeat


class MissingRequirement(NamedTuple):
    """Why no worker would take a run from a pool, and how to fix it."""

    reason: str
    advice: str


Look = Callable[[str], MissingRequirement | None]
"""Checks what a pool lacks now; returns None if a worker polls it."""


def pools_of(deployments: Mapping[Platform, str]) -> dict[Platform, str]:
    """Return the work pool of each platform's deployment; raise `InvalidInput` for a platform without one."""
    pools = {}
    with get_client(sync_client=True) as client:
        for platform, name in deployments.items():
            try:
                pool = retry_during_outage(partial(client.read_deployment_by_name, name)).work_pool_name
            except ObjectNotFound as error:
                raise InvalidInput(
                    f"the deployment {name} does not exist, so no worker can build for {platform}",
                    advice="Add it to prefect.yaml and run `prefect deploy --all`, or omit the platform.",
                ) from error
            if pool is None:
                raise InvalidInput(f"the deployment {name} has no work pool", advice="Deploy it again.")
            pools[platform] = pool
    return pools


def find_missing_requirement(client: SyncPrefectClient, pool: str) -> MissingRequirement | None:
    """Return why no worker would take a run from a pool now, or None if a worker polls it."""
    try:
        if client.read_work_pool(pool).is_paused:
            return MissingRequirement(
                f"the work pool {pool} is paused", f"Resume it with `prefect work-pool resume {pool}`."
            )
    except ObjectNotFound:
        return MissingRequirement(f"missing work pool: {pool}", "Create it with `soci-pipeline setup`.")
    online = WorkerFilter(status=WorkerFilterStatus(any_=["ONLINE"]))
    if not client.read_workers_for_work_pool(pool, worker_filter=online):
        advice = f"Start one with `prefect worker start --pool {pool}` on a machine of that platform."
        return MissingRequirement(f"no worker polls the work pool {pool}", advice)
    return None


def wait_for_workers(pools: Mapping[Platform, str], seconds: float) -> None:
    """Wait until a worker polls each pool; after ``seconds`` raise `NoWorker` naming the pools without one."""
    deadline = time.monotonic() + seconds
    with get_client(sync_client=True) as client:
        while True:
            missing = retry_during_outage(partial(_missing, client, pools))
            if not missing:
                return
            if time.monotonic() >= deadline:
                raise _no_worker(pools, missing, seconds)
            logger().info(
                "waiting for workers: %s",
                "; ".join(missing_requirement.reason for missing_requirement in missing.values()),
            )
            time.sleep(min(_LOOK_SECONDS, max(0.1, deadline - time.monotonic())))


def _missing(client: SyncPrefectClient, pools: Mapping[Platform, str]) -> dict[str, MissingRequirement]:
    return {
        pool: missing_requirement
        for pool in set(pools.values())
        if (missing_requirement := find_missing_requirement(client, pool))
    }


def _no_worker(pools: Mapping[Platform, str], missing: Mapping[str, MissingRequirement], seconds: float) -> NoWorker:
    lines = []
    for pool, missing_requirement in sorted(missing.items()):
        platforms = ", ".join(str(platform) for platform, name in pools.items() if name == pool)
        lines.append(
            f"{platforms}: {missing_requirement.reason}"
            + (f", and none came online within {seconds:g} s" if seconds else "")
        )
    return NoWorker(
        "; ".join(lines), advice=f"{missing[min(missing)].advice} `worker_wait` sets how long to wait for one."
    )


class Watch:
    """Watches the pools until branches run, since the last worker of a pool may die in the meantime.

    This also detects a branch whose worker died between taking and starting it, which never sends a heartbeat.
    """

    def __init__(self, pools: Mapping[Platform, str], timeout: float, *, clock: Clock = time.monotonic) -> None:
        self._pools = pools
        self._timeout = timeout
        self._clock = clock
        self._alone_since: dict[str, float] = {}
        self._next = 0.0

    def abandoned(
        self, look: Look, waiting: Sequence[Platform], taken: Sequence[Platform] = ()
    ) -> dict[Platform, MissingRequirement]:
        """Return the platforms whose pool has had no worker for too long, and why.

        Platforms in ``waiting`` get the configured timeout; those in ``taken``, whose branch a worker has taken but not
        started yet, get the time of a late heartbeat.
        """
        now = self._clock()
        if not (waiting or taken) or now < self._next:
            return {}
        self._next = now + _LOOK_SECONDS
        found = {}
        timeout = dict.fromkeys(waiting, self._timeout) | dict.fromkeys(taken, _LATE_BEAT_SECONDS)
        for platform, seconds in timeout.items():
            pool = self._pools[platform]
            missing_requirement = look(pool)
            if missing_requirement is None:
                self._alone_since.pop(pool, None)
            elif now - self._alone_since.setdefault(pool, now) >= seconds:
                gone = ", because the one that accepted it is gone" if platform in taken else ""
                found[platform] = missing_requirement._replace(reason=missing_requirement.reason + gone)
        return found
