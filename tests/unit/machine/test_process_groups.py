"""How a program starts: quickly, stoppable by every signal, and never living longer than who waits for it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from soci_pipeline.errors import ToolFailed
from soci_pipeline.machine import parent_death, programs
from soci_pipeline.machine.programs import run
from tests.support.processes import is_alive
from tests.support.programs import write_program

WITHOUT_SETPRIV = """
from soci_pipeline.machine import parent_death
parent_death.with_parent = lambda argv: None
"""
HANDLING = """
import signal
from soci_pipeline.machine import programs
calls = []
def handler(number, frame):
    calls.append(signal.Signals(number).name)
    raise SystemExit(3)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, handler)
try:
    programs.run(["starts"])
finally:
    print(*calls, all(signal.getsignal(number) is handler for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)))
"""
WAYS = ["setpriv", "between fork and exec"]
NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


@pytest.fixture(params=WAYS)
def way(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    or_skip: Callable[[], AbstractContextManager[None]],
) -> str:
    """Each way to tie a program to its parent; in another process, run the returned lines first."""
    if request.param == WAYS[0]:
        with or_skip():
            programs.find("setpriv", package="util-linux")
        return ""
    monkeypatch.setattr(parent_death, "with_parent", lambda argv: None)
    return WITHOUT_SETPRIV


@pytest.fixture(params=["main thread", "other thread"])
def start(request: pytest.FixtureRequest) -> Iterator[Callable[[list[str]], str]]:
    """Run a program in this thread or in another, and return what it printed."""
    if request.param == "main thread":
        yield lambda argv: run(argv).stdout
        return
    with ThreadPoolExecutor(1) as pool:
        yield lambda argv: pool.submit(run, argv).result().stdout


def _states(text: str) -> dict[str, int]:
    """The signal masks of /proc/<pid>/status."""
    pairs = (line.split(":") for line in text.splitlines() if line.startswith("Sig") and "/" not in line)
    return {name: int(value, 16) for name, value in pairs}


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_during_the_start_ends_the_program_and_its_handler_runs_once(
    fake: Path, way: str, number: signal.Signals
) -> None:
    pid_file = fake / "pid"
    write_program(fake, "starts", f"echo $$ > {pid_file}; kill -{number.name[3:]} $PPID; exec sleep 300")
    done = subprocess.run(
        [sys.executable, "-c", way + HANDLING], check=False, timeout=60, stdout=subprocess.PIPE, text=True
    )
    assert (done.returncode, done.stdout) == (3, f"{number.name} True\n")
    _wait_for(lambda: not is_alive(int(pid_file.read_text())))


def test_a_program_ends_with_a_process_that_is_killed(fake: Path, way: str) -> None:
    pid_file = fake / "pid"
    write_program(fake, "build", f"echo $$ > {pid_file}; exec sleep 600")
    script = f"{way}\nfrom soci_pipeline.machine import programs; programs.run(['build'])"
    with subprocess.Popen([sys.executable, "-c", script]) as waiting:
        _wait_for(lambda: pid_file.exists() and pid_file.read_text().strip() != "")
        waiting.kill()
    _wait_for(lambda: not is_alive(int(pid_file.read_text())))


@pytest.mark.usefixtures("way")
def test_a_program_blocks_and_ignores_no_signal_that_would_end_it(start: Callable[[list[str]], str]) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ignoring = _states(start(["cat", "/proc/self/status"]))
    finally:
        signal.signal(signal.SIGINT, before)
    for states in (ignoring, _states(start(["cat", "/proc/self/status"]))):
        assert states["SigBlk"] == 0
        assert not any(states["SigIgn"] & 1 << (number - 1) for number in NUMBERS)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"#!/no/such/interpreter\n", id="script without its interpreter"),
        pytest.param(b"#!\n", id="script that names none"),
        pytest.param(b"echo I am no script\n", id="text"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"MZ\x90\x00\x00", id="for Windows"),
        pytest.param(b"\x7fELF\x02\x01\x01junk", id="no machine"),
        pytest.param(b"\x7fELF\x02\x02\x01" + bytes(11) + b"\x00\x16" + bytes(100), id="other machine"),
    ],
)
@pytest.mark.parametrize("through", ["", "#!{}\n"], ids=["itself", "as an interpreter"])
def test_what_the_kernel_does_not_execute_is_not_given_to_a_shell(fake: Path, content: bytes, through: str) -> None:
    inner = fake / ("inner" if through else "foreign")
    inner.write_bytes(content)
    inner.chmod(0o755)
    if through:
        write_program(fake, "foreign", "").write_text(through.format(inner))
    with pytest.raises(ToolFailed, match=r"foreign cannot be started: (Exec format error|No such file|Permission)"):
        run(["foreign"], check=False)


@pytest.mark.usefixtures("way")
def test_an_interpreter_that_may_not_be_executed_is_the_reason(fake: Path) -> None:
    interpreter = fake / "interpreter"
    interpreter.write_bytes(Path("/proc/self/exe").read_bytes()[:1000])
    write_program(fake, "foreign", "").write_text(f"#!{interpreter}\n")
    with pytest.raises(ToolFailed, match="foreign cannot be started: Permission denied"):
        run(["foreign"])


@pytest.mark.usefixtures("way")
def test_a_program_whose_loader_is_missing_is_named_in_any_language(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Path("/bin/true").read_bytes()
    loader = b"/lib64/ld-linux-x86-64.so.2" if b"/lib64/ld-linux-x86-64.so.2" in own else b"/lib/ld-linux"
    path = fake / "foreign one"
    path.write_bytes(own.replace(loader, loader.replace(b"/ld-", b"/no-"), 1))
    path.chmod(0o755)
    for language in ("C", "de_DE.UTF-8"):
        monkeypatch.setenv("LC_ALL", language)
        with pytest.raises(ToolFailed, match=r"foreign one cannot be started: .+"):
            run(["foreign one"])


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("status", [126, 127])
def test_a_program_may_end_with_the_statuses_of_setpriv(fake: Path, status: int) -> None:
    write_program(fake, "own", f"echo 'setpriv: failed to execute /other: reason' >&2; exit {status}")
    assert run(["own"], check=False).status == status


@pytest.mark.usefixtures("way")
def test_a_program_on_a_relative_path_counts_from_its_working_folder(fake: Path) -> None:
    write_program(fake, "relative", "pwd")
    write_program(fake / "below", "relative", "exit 3")
    assert run([write_program(fake, "pwd-of", "pwd")], cwd=fake).stdout == f"{fake}\n"
    before = Path.cwd()
    os.chdir(fake / "below")
    try:
        assert run(["./relative"], cwd=fake).stdout == f"{fake}\n"
    finally:
        os.chdir(before)


def test_a_setpriv_that_does_not_know_the_signal_is_not_used(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write_program(fake / "old", "setpriv", 'test "$1" != --pdeathsig')
    monkeypatch.setattr(shutil, "which", lambda *_, **__: str(old))
    parent_death._setpriv.cache_clear()
    try:
        assert parent_death.with_parent([sys.executable]) is None
        old.unlink()
        parent_death._setpriv.cache_clear()
        assert parent_death.with_parent([sys.executable]) is None
    finally:
        parent_death._setpriv.cache_clear()
