"""Queue many publications at once on a local stack, wait for them, count them, and measure their overhead."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_stack.footprint import marked_processes
from local_stack.plain_image import add_image, add_layer, file_member
from local_stack.prebuilt_images import served
from local_stack.stack import PLATFORMS, Stack
from soci_pipeline.archive.write import write_archive
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.platform import Platform
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.runs import FINAL_STATES
from soci_pipeline.registry.client import RegistryClient
from tests.support.publications import ask

_CREATED = 1_704_067_200
_PAGE = 200
_LOOK_SECONDS = 5.0
_TICKS = os.sysconf("SC_CLK_TCK")
TAG = "queued"


@dataclass(frozen=True)
class Queued:
    """The result of publications that were queued at once. Times are seconds; CPU is user and system together."""

    asked: int
    states: Mapping[str, int]
    """The number of publications by final state."""
    branches: Mapping[str, int]
    """The number of branches known to Prefect, by final state."""
    tagged: int
    """The number of repositories whose tag points to an image index."""
    wall: float
    cpu: Mapping[str, float]
    """By part of the stack: server, database, workers, runs."""


def write_tiny_images(folder: Path, platforms: Sequence[Platform] = PLATFORMS) -> Path:
    """Write an image of a few bytes for each platform into a new folder (``linux-amd64.tar``, …)."""
    folder.mkdir(parents=True)
    for platform in platforms:
        layout = Layout.create(folder / f"layout-{platform.slug}")
        layer = add_layer(layout, [file_member("note.txt", str(platform).encode())], created_by="a note")
        layout.set_roots([add_image(layout, [layer], platform, created=_CREATED, config={"Cmd": ["/note.txt"]})])
        write_archive(layout, folder / f"{platform.slug}.tar")
    return folder


@contextmanager
def tiny_images(folder: Path) -> Iterator[str]:
    """Serve such images; yield the URL for the builder ``prebuilt``."""
    with served(write_tiny_images(folder)) as address:
        yield f"{address}/{{platform}}.tar"


def publish_all(stack: Stack, count: int, parameters: Mapping[str, Any], *, seconds: float) -> Queued:
    """Queue ``count`` publications, each to a separate repository, and wait until all have ended."""
    before = cpu_of(stack)
    started = time.monotonic()
    with PrefectApi(stack.prefect_api_url) as api:
        runs = [
            api.create_run("publish-image/publish", dict(parameters) | {"image": image, "tags": [TAG]})
            for image in (f"{stack.registry}/queued/app-{number}" for number in range(count))
        ]
    deadline = started + seconds
    while (ended := _ended(stack, runs)) < count:
        assert time.monotonic() < deadline, f"after {seconds:g} s {ended} of {count} have ended"
        time.sleep(_LOOK_SECONDS)
    wall = time.monotonic() - started
    after = cpu_of(stack)
    with RegistryClient(stack.registry) as client:
        found = [client.manifests.head(f"queued/app-{number}", TAG) for number in range(count)]
    return Queued(
        asked=count,
        states=Counter(_states(stack, {"id": {"any_": runs}})),
        branches=Counter(_states(stack, {"parent_flow_run_id": {"any_": runs}})),
        tagged=sum(descriptor is not None for descriptor in found),
        wall=wall,
        cpu={part: after[part] - before[part] for part in after},
    )


def idle_cpu(stack: Stack, seconds: float) -> dict[str, float]:
    """Return the CPU seconds per second, by part, of a stack on which nothing is queued."""
    before = cpu_of(stack)
    time.sleep(seconds)
    return {part: (after - before[part]) / seconds for part, after in cpu_of(stack).items()}


def _ended(stack: Stack, runs: Sequence[str]) -> int:
    # Counted by the server: listing all runs every few seconds would use much of its CPU time.
    wanted = {"id": {"any_": list(runs)}, "state": {"type": {"any_": sorted(FINAL_STATES)}}}
    return int(ask(stack, "/flow_runs/count", {"flow_runs": wanted}))


def cpu_of(stack: Stack) -> dict[str, float]:
    """Return the CPU seconds so far by part of the stack: of its running processes and of their ended children."""
    parts = dict.fromkeys(("server", "database", "workers", "runs"), 0.0)
    for pid in _tree(stack):
        try:
            argv = (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0")
            own, ended = _times(pid)
        except OSError:
            continue
        part = _part(argv)
        if part == "workers":
            # The ended children of a worker are its runs.
            parts["workers"] += own
            parts["runs"] += ended
        elif part is not None:
            parts[part] += own + ended
    return parts


def _part(argv: Sequence[bytes]) -> str | None:
    if b"server" in argv and b"prefect" in argv:
        return "server"
    if argv[0].startswith(b"postgres:") or argv[0].endswith(b"/postgres"):
        return "database"
    if b"worker" in argv and b"start" in argv:
        return "workers"
    return "runs" if any(b"prefect" in word for word in argv) else None


def _tree(stack: Stack) -> set[int]:
    """Return a stack's processes; PostgreSQL's children overwrite the mark, so they are found by their parent."""
    marked = set(marked_processes(stack.env["SOCI_PIPELINE_STACK"]))
    children = {pid for pid in _all() if _parent(pid) in marked}
    return marked | children


def _all() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _fields(pid: int) -> list[str]:
    # The name in parentheses may contain anything (proc_pid_stat(5)).
    return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _parent(pid: int) -> int:
    try:
        return int(_fields(pid)[1])
    except OSError:
        return 0


def _times(pid: int) -> tuple[float, float]:
    """Return the CPU seconds of a process, and of its children that have ended."""
    user, system, children_user, children_system = (int(word) / _TICKS for word in _fields(pid)[11:15])
    return user + system, children_user + children_system


def _states(stack: Stack, wanted: Mapping[str, Any]) -> list[str]:
    return [str(run["state_type"]) for run in _pages(stack, wanted)]


def _pages(stack: Stack, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = ask(
            stack, "/flow_runs/filter", {"flow_runs": wanted, "limit": _PAGE, "offset": len(found), "sort": "ID_DESC"}
        )
        found += page
        if len(page) < _PAGE:
            return found
