"""100 publications queued at once on the local stack with PostgreSQL: all must end, and none may be lost.

Each is a complete publication for two platforms (three flow runs, each a process that imports Prefect) of an image of a
few bytes, so this measures orchestration. Four publications and two branches of each platform run at once.

The figures are CPU seconds per publication: of the Prefect server, PostgreSQL, the three workers, and the processes of
the flow runs, minus what the stack uses in the same time with nothing queued, which is measured before. There is
nothing to compare them with; the bounds are this project's own limits.
"""

from collections.abc import Iterator

from benchmarks.figures import Figure, Row
from benchmarks.parts import Parts, Workbench
from local_stack.stack import StackOptions, local_stack
from tests.support.queued import Queued, idle_cpu, publish_all, tiny_images

COUNT = 100
AT_ONCE = {"soci-control": 4, "soci-amd64": 2, "soci-arm64": 2}
IDLE_SECONDS = 60.0
SECONDS = 7200.0
LIMIT_SECONDS = 2 * SECONDS
BOUNDS = {"server": 4.0, "database": 1.0, "workers": 2.0, "runs": 15.0}


def queue(bench: Workbench) -> Iterator[Row]:
    count, images = bench.scaled(COUNT), bench.folder / "images"
    with (
        tiny_images(images) as prebuilt,
        local_stack(bench.folder / "stack", StackOptions(database="postgres", limits=AT_ONCE)) as stack,
    ):
        source = stack.git.serve_snapshot(images, "source")
        parameters = {"source": source.url, "builder": "prebuilt", "prebuilt": prebuilt}
        idle = idle_cpu(stack, IDLE_SECONDS)
        queued = publish_all(stack, count, parameters, seconds=SECONDS)
    _check(queued, count)
    ended = f"{count} of {count} ended well in {queued.wall:.0f} s"
    for part, bound in BOUNDS.items():
        everything, anyhow = queued.cpu[part], idle[part] * queued.wall
        note = f"{ended}; {everything:.0f} s in all, {anyhow:.0f} s of them with nothing queued"
        cost = (everything - anyhow) / count
        yield Figure(f"a publication's CPU time, {part}", cost, bound, "the limit", "s", 1.0, note)


PARTS: Parts = {"many publications queued at once": queue}


def _check(queued: Queued, count: int) -> None:
    wanted = {"states": {"COMPLETED": count}, "branches": {"COMPLETED": 2 * count}, "tagged": count}
    found = {"states": dict(queued.states), "branches": dict(queued.branches), "tagged": queued.tagged}
    if found != wanted:
        raise RuntimeError(f"publications were lost or failed: {found} instead of {wanted}")
