"""Whether a publication can run: its deployments, their work pools, and the workers that poll them."""

from collections.abc import Sequence
from dataclasses import dataclass

from soci_pipeline.deployment_names import PUBLISH
from soci_pipeline.errors import NoWorker, StackError
from soci_pipeline.oci.platform import Platform
from soci_pipeline.prefect_rest.client import PrefectApi

DEPLOYMENT = PUBLISH
"""The deployment that publishes an image."""


@dataclass(frozen=True, slots=True)
class Part:
    """A deployment that a publication needs, with its work pool and the online workers; ``lack`` is what is missing."""

    what: str
    deployment: str
    pool: str
    workers: tuple[str, ...]
    missing_requirement: str | None = None
    advice: str | None = None


def branch_deployment(platform: Platform) -> str:
    """The deployment that builds for a platform."""
    return f"build-platform/{platform.slug}"


def parts_of(api: PrefectApi, platforms: Sequence[Platform]) -> tuple[Part, ...]:
    """Look up what a publication for some platforms needs; raise `StackError` if a deployment is missing."""
    wanted = {"control": DEPLOYMENT} | {str(platform): branch_deployment(platform) for platform in platforms}
    pools = {what: api.work_pool_of(deployment) for what, deployment in wanted.items()}
    missing = [f"{wanted[what]} ({what})" for what, pool in pools.items() if not pool]
    if missing:
        raise StackError(
            f"Prefect has no deployment {', '.join(missing)}",
            advice="Run `soci-pipeline setup` and `prefect --no-prompt deploy --all`, or choose other platforms.",
        )
    return tuple(_part(api, what, wanted[what], pool or "") for what, pool in pools.items())


def _part(api: PrefectApi, what: str, deployment: str, name: str) -> Part:
    pool = api.work_pool(name)
    if pool is None:
        return Part(what, deployment, name, (), f"missing work pool: {name}", "Run `soci-pipeline setup`.")
    workers = api.online_workers(name)
    if pool.is_paused:
        advice = f"Run `prefect work-pool resume {name}`."
        return Part(what, deployment, name, workers, f"the work pool {name} is paused", advice)
    if not workers:
        where = "" if what == "control" else f" on a {what} machine (with the builder prebuilt, on any)"
        others = "" if what == "control" else " Or choose the platforms that have a worker with --platform."
        advice = f"Start one{where}: `prefect worker start --pool {name}`.{others}"
        return Part(what, deployment, name, (), f"no worker polls the work pool {name}", advice)
    return Part(what, deployment, name, workers)


def check_parts(parts: Sequence[Part]) -> None:
    """Raise `NoWorker` naming every pool without a worker, with the command that starts one."""
    lacking = [part for part in parts if part.missing_requirement is not None]
    if lacking:
        raise NoWorker(
            "; ".join(f"{part.what}: {part.missing_requirement}" for part in lacking),
            advice=" ".join(dict.fromkeys(part.advice for part in lacking if part.advice)),
        )
