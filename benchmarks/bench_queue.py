"""100 publications queued at once on the local stack with PostgreSQL: all must end, and none may be lost.

Each is a whole publication for two platforms (three flow runs, each a process that imports Prefect) of an image of a
few bytes, so that what is measured is orchestration. Four publications and two branches of each platform run at once.
The figures are CPU seconds for one publication: of the Prefect server, PostgreSQL, the three workers, and the processes
of the flow runs. They have no rival; the bounds are what this project holds itself to.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Figure
from soci_pipeline.local.stack import local_stack
from tests.support.queued import Queued, publish_all, tiny_images

COUNT = 100
AT_ONCE = {"soci-control": 4, "soci-amd64": 2, "soci-arm64": 2}
SECONDS = 7200.0
BOUNDS = {"server": 4.0, "database": 1.0, "workers": 2.0, "runs": 15.0}


def run(folder: Path) -> Sequence[Figure]:

    with (
        tiny_images(folder / "images") as prebuilt,
        local_stack(folder / "stack", engine=None, database="postgres", limits=AT_ONCE) as stack,
    ):
        source = stack.git.serve_snapshot(folder / "images", "source")
        parameters = {"source": source.url, "builder": "prebuilt", "prebuilt": prebuilt}
        queued = publish_all(stack, COUNT, parameters, seconds=SECONDS)
    _check(queued)
    note = f"{COUNT} of {COUNT} ended well in {queued.wall:.0f} s"
    return [
        Figure(f"a publication's CPU time, {part}", queued.cpu[part] / COUNT, bound, "the bound", "s", 1.0, note)
        for part, bound in BOUNDS.items()
    ]


def _check(queued: Queued) -> None:
    wanted = {"states": {"COMPLETED": COUNT}, "branches": {"COMPLETED": 2 * COUNT}, "tagged": COUNT}
    found = {"states": dict(queued.states), "branches": dict(queued.branches), "tagged": queued.tagged}
    if found != wanted:
        raise RuntimeError(f"publications were lost or failed: {found} instead of {wanted}")
