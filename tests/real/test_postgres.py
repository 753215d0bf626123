"""The local stack on PostgreSQL: what is queued all ends, and nothing of the database is left."""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from local_stack.footprint import footprint, marked_processes
from local_stack.postgres import postgres
from local_stack.toolchain import Toolchain
from soci_pipeline.machine.programs import run

pytestmark = pytest.mark.timeout(1200)


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
