"""The local stack on PostgreSQL: what is queued all ends, and nothing of the database is left."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from soci_pipeline.local.footprint import footprint, marked_processes
from soci_pipeline.local.postgres import postgres
from soci_pipeline.local.stack import Stack, local_stack
from soci_pipeline.local.toolchain import Toolchain
from soci_pipeline.process import run
from tests.support.publications import ask
from tests.support.queued import publish_all, tiny_images

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

QUEUED = 6
"""What the gate can afford; `python -m benchmarks queue` queues a hundred."""


@pytest.fixture(scope="module")
def on_postgres(
    toolchain: Toolchain,
    or_skip: Callable[[], AbstractContextManager[None]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """A stack whose Prefect server keeps its state in PostgreSQL; two runs of each pool at once."""
    with ExitStack() as block:
        with or_skip():
            limits = dict.fromkeys(("soci-control", "soci-amd64", "soci-arm64"), 2)
            folder = tmp_path_factory.mktemp("postgres-stack")
            started = block.enter_context(
                local_stack(folder, engine=None, toolchain=toolchain, database="postgres", limits=limits)
            )
        yield started


def test_all_queued_publications_end_well_and_none_is_lost(on_postgres: Stack, tmp_path: Path) -> None:
    with tiny_images(tmp_path / "images") as prebuilt:
        source = on_postgres.git.serve_snapshot(tmp_path / "images", "source")
        parameters = {"source": source.url, "builder": "prebuilt", "prebuilt": prebuilt}
        queued = publish_all(on_postgres, QUEUED, parameters, seconds=900)
    assert dict(queued.states) == {"COMPLETED": QUEUED}
    assert dict(queued.branches) == {"COMPLETED": 2 * QUEUED}
    assert queued.tagged == QUEUED
    assert all(seconds > 0 for seconds in queued.cpu.values())


def test_the_server_keeps_nothing_in_sqlite(on_postgres: Stack) -> None:
    assert ask(on_postgres, "/work_pools/soci-control")["name"] == "soci-control"
    assert not list((on_postgres.folder / "prefect").rglob("*.db"))


def test_nobody_but_the_owner_gets_in_and_nothing_is_left(
    toolchain: Toolchain, or_skip: Callable[[], AbstractContextManager[None]], tmp_path: Path
) -> None:
    with footprint(tmp_path / "stack") as traces:
        with or_skip():
            toolchain.ensure(["postgres"])
        with postgres(tmp_path / "stack" / "postgres", traces, toolchain=toolchain, env=traces.environment) as url:
            folder = Path(url.partition("host=")[2])
            assert "@/" in url, "a unix socket, without a password or a port"
            assert folder.stat().st_mode & 0o077 == 0
            (server,) = [pid for pid in marked_processes(traces.mark) if _listens(pid)]
            assert _owner(server) == folder.stat().st_uid
            assert (folder / ".s.PGSQL.5432").is_socket()
    assert not folder.exists()
    assert not any(marked_processes(traces.mark))


def _listens(pid: int) -> bool:
    return b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _owner(pid: int) -> int:
    return int(run(["stat", "-c", "%u", f"/proc/{pid}"]).stdout)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs it as himself")
def test_it_starts_from_a_toolchain_that_only_root_can_enter(
    toolchain: Toolchain, or_skip: Callable[[], AbstractContextManager[None]], tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    with or_skip():
        toolchain.ensure(["postgres"])
    program = toolchain.program("postgres").resolve()
    package = next(each for each in program.parents if each.parent.name == "packages")
    shutil.copytree(package, closed / "packages" / package.name, symlinks=True)
    (closed / "bin").mkdir()
    for name in ("initdb", "postgres"):
        place = toolchain.program(name).resolve().relative_to(package)
        (closed / "bin" / name).symlink_to(closed / "packages" / package.name / place)
    if (toolchain.folder / "lib").is_dir():
        shutil.copytree(toolchain.folder / "lib", closed / "lib", symlinks=True)
    closed.chmod(0o700)
    with (
        footprint(tmp_path / "stack") as traces,
        postgres(tmp_path / "log", traces, toolchain=Toolchain(closed)) as url,
    ):
        assert url.startswith("postgresql+asyncpg://")
