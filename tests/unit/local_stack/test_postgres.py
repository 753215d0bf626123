"""How PostgreSQL is started and ended, with stand-ins for its programs; the real ones are the real tier's."""

import itertools
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from local_stack.footprint import Footprint, footprint
from local_stack.postgres import postgres
from local_stack.toolchain import Toolchain
from soci_pipeline.errors import StackError
from tests.support.fake_programs import Programs

INITDB = 'for word; do case "$word" in --pgdata=*) mkdir "${word#--pgdata=}" ;; esac; done'
# Ready as pg_ctl would find it: the eighth line of the pid file, and the socket.
POSTGRES = """
[ "$1" = --version ] && exit 0
touch "$4/.s.PGSQL.5432"
printf '%s\\n' $$ 2 3 4 5 6 7 ready > "$2/postmaster.pid"
exec sleep 600
"""
WITHOUT_OPTIONS = 'while case "$1" in -*) true ;; *) false ;; esac; do shift; done; exec "$@"'


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """The programs of a toolchain folder that has PostgreSQL already."""
    made = Programs(tmp_path / "toolchain" / "bin")
    made.folder.mkdir(parents=True)
    made.add("initdb", INITDB)
    made.add("postgres", POSTGRES)
    made.add("setpriv", WITHOUT_OPTIONS)
    return made


@pytest.fixture
def traces(tmp_path: Path) -> Iterator[Footprint]:
    with footprint(tmp_path / "stack") as made:
        yield made


def _folder_of(url: str) -> Path:
    return Path(parse_qs(urlsplit(url).query)["host"][0])


def _options(call: str) -> dict[str, str]:
    words = call.split()
    return dict(word.split("=", 1) for before, word in itertools.pairwise(words) if before == "-c")


def test_prefect_is_given_a_socket_in_a_folder_that_nobody_else_may_enter(
    tmp_path: Path, programs: Programs, traces: Footprint
) -> None:
    tools = Toolchain(tmp_path / "toolchain")
    with postgres(tmp_path / "log", traces, toolchain=tools, env=programs.env) as url:
        folder = _folder_of(url)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(str(folder / ".s.PGSQL.5432")) <= 107
        assert (folder / "data" / "pg_hba.conf").read_text().split() == ["local", "all", "all", "peer", "map=stack"]
        me = pwd.getpwuid(os.geteuid()).pw_name
        assert (folder / "data" / "pg_ident.conf").read_text().split() == ["stack", me, "prefect"]
        server = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
    assert urlsplit(url).scheme == "postgresql+asyncpg"
    assert urlsplit(url).netloc == "prefect@", "no password and no port"
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)
    traces.undo()
    assert not folder.exists()


def test_it_listens_on_no_port_and_asks_the_kernel_who_connects(
    tmp_path: Path, programs: Programs, traces: Footprint
) -> None:
    with postgres(tmp_path / "log", traces, toolchain=Toolchain(tmp_path / "toolchain"), env=programs.env):
        pass
    started = next(call for call in programs.calls() if call.startswith("postgres -D "))
    options = _options(started)
    assert (options["listen_addresses"], options["unix_socket_permissions"]) == ("", "0700")
    made = next(call for call in programs.calls() if call.startswith("initdb "))
    assert {"--auth-local=peer", "--auth-host=reject"} <= set(made.split())


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs it as himself")
def test_root_starts_it_as_nobody_since_it_refuses_to_be_root(
    tmp_path: Path, programs: Programs, traces: Footprint
) -> None:
    with postgres(tmp_path / "log", traces, toolchain=Toolchain(tmp_path / "toolchain"), env=programs.env) as url:
        assert _folder_of(url).owner() == "nobody"
    as_user = [call for call in programs.calls() if call.startswith("setpriv ")]
    assert len(as_user) == 4
    assert all("--reuid=nobody" in call and "--clear-groups" in call for call in as_user)


def test_programs_that_its_user_cannot_reach_are_copied_to_its_folder(
    tmp_path: Path, programs: Programs, traces: Footprint
) -> None:
    package = tmp_path / "toolchain" / "packages" / "postgresql"
    (package / "bin").mkdir(parents=True)
    for name in ("initdb", "postgres"):
        (programs.folder / name).rename(package / "bin" / name)
        (programs.folder / name).symlink_to(package / "bin" / name)
    (tmp_path / "toolchain" / "lib").mkdir()
    (tmp_path / "elsewhere.so").write_text("a library")
    (tmp_path / "toolchain" / "lib" / "libneeded.so").symlink_to(tmp_path / "elsewhere.so")
    programs.add("test", "exit 1")
    with postgres(tmp_path / "log", traces, toolchain=Toolchain(tmp_path / "toolchain"), env=programs.env) as url:
        folder = _folder_of(url)
        server = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        environment = (Path("/proc") / str(server) / "environ").read_bytes().split(b"\0")
        assert f"LD_LIBRARY_PATH={folder / 'lib'}".encode() in environment
        assert (folder / "package" / "bin" / "postgres").is_file()
        assert not (folder / "lib" / "libneeded.so").is_symlink()
    traces.undo()
    assert not folder.exists()


def test_a_folder_that_its_user_may_not_enter_is_told_with_what_to_do(
    tmp_path: Path, programs: Programs, traces: Footprint
) -> None:
    programs.add("initdb", "echo 'could not access directory: Permission denied' >&2; exit 1")
    with (
        pytest.raises(StackError, match=r"(?s)cannot start PostgreSQL.*Permission denied") as caught,
        postgres(tmp_path / "log", traces, toolchain=Toolchain(tmp_path / "toolchain"), env=programs.env),
    ):
        pytest.fail("there is no database")
    assert "TMPDIR" in str(caught.value.advice)


def test_a_server_that_ends_while_starting_is_shown_with_its_log(
    tmp_path: Path, programs: Programs, traces: Footprint
) -> None:
    programs.add("postgres", '[ "$1" = --version ] && exit 0; echo "FATAL: out of shared memory"; exit 1')
    with (
        pytest.raises(StackError, match=r"(?s)PostgreSQL ended while starting.*out of shared memory"),
        postgres(tmp_path / "log", traces, toolchain=Toolchain(tmp_path / "toolchain"), env=programs.env),
    ):
        pytest.fail("there is no database")
