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
from tasks.outage import patiently

_LOOK_SECONDS = 2.0
_LATE_BEAT_SECONDS = 30.0  # a live worker may look dead for one heartbeat


class Lack(NamedTuple):
    """Why no worker would take a run from a pool, and how to fix it."""

    reason: str
    advice: str


Look = Callable[[str], Lack | None]
"""Checks what a pool lacks now; returns None if a worker polls it."""


def pools_of(deployments: Mapping[Platform, str]) -> dict[Platform, str]:
    """Return the work pool of each platform's deployment; raise `InvalidInput` for a platform without one."""
    pools = {}
    with get_client(sync_client=True) as client:
        for platform, name in deployments.items():
            try:
                pool = patiently(partial(client.read_deployment_by_name, name)).work_pool_name
            except ObjectNotFound as error:
                raise InvalidInput(
                    f"there is no deployment {name}, so nothing builds for {platform}",
                    advice="Add it to prefect.yaml and run `prefect deploy --all`, or leave the platform out.",
                ) from error
            if pool is None:
                raise InvalidInput(f"the deployment {name} has no work pool", advice="Deploy it again.")
            pools[platform] = pool
    return pools


def lack_of(client: SyncPrefectClient, pool: str) -> Lack | None:
    """Return why no worker would take a run from a pool now, or None if a worker polls it."""
    try:
        if client.read_work_pool(pool).is_paused:
            return Lack(f"the work pool {pool} is paused", f"Resume it with `prefect work-pool resume {pool}`.")
    except ObjectNotFound:
        return Lack(f"there is no work pool {pool}", "Make it with `soci-pipeline setup`.")
    online = WorkerFilter(status=WorkerFilterStatus(any_=["ONLINE"]))
    if not client.read_workers_for_work_pool(pool, worker_filter=online):
        advice = f"Start one with `prefect worker start --pool {pool}` on a machine of that platform."
        return Lack(f"no worker polls the work pool {pool}", advice)
    return None


def wait_for_workers(pools: Mapping[Platform, str], seconds: float) -> None:
    """Wait until a worker polls each pool; after ``seconds`` raise `NoWorker` naming the pools without one."""
    deadline = time.monotonic() + seconds
    with get_client(sync_client=True) as client:
        while True:
            missing = patiently(partial(_missing, client, pools))
            if not missing:
                return
            if time.monotonic() >= deadline:
                raise _no_worker(pools, missing, seconds)
            logger().info("waiting for workers: %s", "; ".join(lack.reason for lack in missing.values()))
            time.sleep(min(_LOOK_SECONDS, max(0.1, deadline - time.monotonic())))


def _missing(client: SyncPrefectClient, pools: Mapping[Platform, str]) -> dict[str, Lack]:
    return {pool: lack for pool in set(pools.values()) if (lack := lack_of(client, pool))}


def _no_worker(pools: Mapping[Platform, str], missing: Mapping[str, Lack], seconds: float) -> NoWorker:
    lines = []
    for pool, lack in sorted(missing.items()):
        platforms = ", ".join(str(platform) for platform, name in pools.items() if name == pool)
        lines.append(f"{platforms}: {lack.reason}" + (f", and none came within {seconds:g} s" if seconds else ""))
    return NoWorker(
        "; ".join(lines), advice=f"{missing[min(missing)].advice} `worker_wait` is how long one is waited for."
    )


class Watch:
    """Watches the pools until branches run, since the last worker of a pool may die in the meantime.

    This also detects a branch whose worker died between taking and starting it, which never sends a heartbeat.
    """

    def __init__(self, pools: Mapping[Platform, str], patience: float, *, clock: Clock = time.monotonic) -> None:
        self._pools = pools
        self._patience = patience
        self._clock = clock
        self._alone_since: dict[str, float] = {}
        self._next = 0.0

    def abandoned(
        self, look: Look, waiting: Sequence[Platform], taken: Sequence[Platform] = ()
    ) -> dict[Platform, Lack]:
        """Return the platforms whose pool has had no worker for too long, and why.

        Platforms in ``waiting`` get the configured timeout; those in ``taken``, whose branch a worker has taken but not
        started yet, get the time of a late heartbeat.
        """
        now = self._clock()
        if not (waiting or taken) or now < self._next:
            return {}
        self._next = now + _LOOK_SECONDS
        found = {}
        patience = dict.fromkeys(waiting, self._patience) | dict.fromkeys(taken, _LATE_BEAT_SECONDS)
        for platform, seconds in patience.items():
            pool = self._pools[platform]
            lack = look(pool)
            if lack is None:
                self._alone_since.pop(pool, None)
            elif now - self._alone_since.setdefault(pool, now) >= seconds:
                gone = ", since the one that took it is gone" if platform in taken else ""
                found[platform] = lack._replace(reason=lack.reason + gone)
        return found
