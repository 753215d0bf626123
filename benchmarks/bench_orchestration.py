"""A publication whose steps do nothing: tiny existing images for two platforms, in the local stack with PostgreSQL.

PostgreSQL is what production uses. Workers are warm, each in a separate process for one pool; one publication has run
before. The time is from the call of Prefect's API that starts the run to the tag in the registry, the median of
several. It consists of starting the processes of the run and its two branches, Prefect's imports in them, and waiting
for the next poll.
"""

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from benchmarks.figures import Figure, Row
from benchmarks.parts import Parts, Workbench
from local_stack.stack import Stack, StackOptions, local_stack
from soci_pipeline.deployment_names import PUBLISH
from soci_pipeline.errors import BranchFailed
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.registry.client import RegistryClient
from tests.support.queued import tiny_images

ROUNDS = 5
GOAL_SECONDS = 15
_LOOK_SECONDS = 0.2
_TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class _Course:
    """Seconds after the trigger."""

    began: float
    """The first line of the publication."""
    branches_began: float
    """The first line of the later branch."""
    branches_ended: float
    tagged: float


def empty_run(bench: Workbench) -> Iterator[Row]:
    tree = bench.folder / "tree"
    tree.mkdir()
    (tree / "README").write_text("Nothing is built from this.\n")
    with (
        tiny_images(bench.folder / "images") as prebuilt,
        local_stack(bench.folder / "stack", StackOptions(database="postgres")) as stack,
    ):
        source = stack.git.serve_snapshot(tree, "nothing", message="Nothing")
        asked = {"source": source.url, "builder": "prebuilt", "prebuilt": prebuilt}
        courses = [_publish(stack, f"bench/nothing-{number}", asked) for number in range(1 + bench.rounds(ROUNDS))]
    yield _figure(courses[1:])


PARTS: Parts = {"orchestration, a run whose steps do nothing": empty_run}


def _figure(courses: list[_Course]) -> Figure:
    def median(name: str) -> float:
        return float(statistics.median(getattr(course, name) for course in courses))

    tagged = median("tagged")
    times = ", ".join(f"{course.tagged:.1f}" for course in courses)
    note = (
        f"all: {times}; the run begins after {median('began'):.1f} s, its branches after "
        f"{median('branches_began'):.1f} s, they end after {median('branches_ended'):.1f} s"
    )
    return Figure("orchestration, from trigger to tag", tagged, GOAL_SECONDS, "the limit", "s", 1.0, note)


def _publish(stack: Stack, repository: str, asked: Mapping[str, Any]) -> _Course:
    """Start a publication and wait for its tag, then for its end; raise `BranchFailed`."""
    with PrefectApi(stack.prefect_api_url) as api, RegistryClient(stack.registry) as client:
        triggered, started = time.time(), time.monotonic()
        run = api.create_run(PUBLISH, {"image": f"{stack.registry}/{repository}", "tags": ["v1"], **asked})
        while client.manifests.head(repository, "v1") is None:
            _check(api, run, started)
            time.sleep(_LOOK_SECONDS)
        tagged = time.monotonic() - started
        while not api.state(run).is_final:
            _check(api, run, started)
            time.sleep(_LOOK_SECONDS)
        _check(api, run, started)
        branches = [_times(stack, each, triggered) for each in api.children(run)]
    return _Course(
        began=_times(stack, run, triggered)[0],
        branches_began=max(began for began, _ in branches),
        branches_ended=max(ended for _, ended in branches),
        tagged=tagged,
    )


def _check(api: PrefectApi, run: str, started: float) -> None:
    state = api.state(run)
    if state.is_final and not state.is_completed:
        raise BranchFailed(f"the flow run ended as {state.kind}: {state.message}")
    if time.monotonic() - started > _TIMEOUT_SECONDS:
        raise TimeoutError(f"no tag after {_TIMEOUT_SECONDS} s; the run is {state.kind}")


def _times(stack: Stack, run: str, since: float) -> tuple[float, float]:
    """Return when a flow run began and ended, in seconds after ``since``."""
    found = httpx.get(f"{stack.prefect_api_url}/flow_runs/{run}", trust_env=False).raise_for_status().json()
    began, ended = (datetime.fromisoformat(found[name]).timestamp() - since for name in ("start_time", "end_time"))
    return began, ended
