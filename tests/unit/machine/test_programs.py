import contextlib
import contextvars
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from soci_pipeline.errors import DeadlineExceeded, ToolFailed, ToolMissing
from soci_pipeline.machine import programs
from soci_pipeline.machine.program_output import concealing
from soci_pipeline.machine.programs import TooManyProcesses, run
from tests.support.logs import logging_to
from tests.support.processes import is_alive


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


class _Lines(logging.Handler):
    def __init__(self, first_takes: float) -> None:
        super().__init__()
        self.first_takes = first_takes
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not self.seen:
            time.sleep(self.first_takes)
        self.seen.append(record.getMessage())


@contextlib.contextmanager
def _logging(first_takes: float = 0) -> Iterator[list[str]]:
    """What is logged in the block; the first line takes so many seconds."""
    lines = _Lines(first_takes)
    with logging_to(lines):
        yield lines.seen


def _has_ended(pid: int) -> bool:
    """Signals to a group arrive one by one: a grandchild may still be on its way out when its parent was waited for."""
    deadline = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_alive(pid)


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_program_s_output_comes_back_whole(fake: Path) -> None:
    program(fake, "talk", "cat; echo out; echo err >&2")
    answer = programs.run(["talk"], stdin=b"in\n")
    assert answer.stdout == "in\nout\n"
    assert answer.stderr_tail == "err\n"


def test_a_missing_program_is_named_with_its_package() -> None:
    with pytest.raises(ToolMissing) as caught:
        programs.run(["no-such-program"], package="some-package")
    assert "no-such-program" in caught.value.reason
    assert "some-package" in (caught.value.advice or "")


def test_a_failure_names_the_program_its_exit_status_and_its_last_lines(fake: Path) -> None:
    program(fake, "broken", "seq 100; echo the reason >&2; exit 7")
    with pytest.raises(ToolFailed) as caught:
        programs.run(["broken"])
    assert "broken ended with exit status 7" in caught.value.reason
    assert "the reason" in caught.value.reason


def test_a_signal_is_told_apart_from_an_exit_status(fake: Path) -> None:
    program(fake, "shot", "kill -KILL $$")
    with pytest.raises(ToolFailed, match="was ended by SIGKILL"):
        programs.run(["shot"])


def test_a_deadline_ends_the_program_and_its_children(fake: Path) -> None:
    pidfile = fake / "pid"
    program(fake, "slow", f"sleep 600 & echo $! > {pidfile}; wait")
    with pytest.raises(DeadlineExceeded, match=r"slow did not finish within 0\.5 s"):
        programs.run(["slow"], timeout=0.5)
    assert _has_ended(int(pidfile.read_text()))


def test_a_program_that_starts_copies_of_itself_without_end_is_killed_with_all_of_them(fake: Path) -> None:
    pids = fake / "pids"
    program(fake, "bomb", f"echo $$ >> {pids}\nbomb &\nsleep 0.02\nexec sleep 600")
    with pytest.raises(TooManyProcesses, match="bomb started more than 20 processes and was killed"):
        programs.run(["bomb"], max_processes=20)
    started = [int(line) for line in pids.read_text().split()]
    assert len(started) > 20
    assert all(_has_ended(pid) for pid in started)


def test_a_program_that_starts_many_processes_one_after_the_other_is_left_alone(fake: Path) -> None:
    program(fake, "loop", "for each in $(seq 100); do /bin/true; done; sleep 0.6; echo done")
    assert programs.run(["loop"], max_processes=5).stdout == "done\n"


@pytest.fixture
def daemon(fake: Path) -> Iterator[Path]:
    """The file that the program ``daemon`` writes its id to; it keeps open what it is given."""
    pidfile = fake / "daemon.pid"
    program(fake, "daemon", f"echo $$ > {pidfile}.new; mv {pidfile}.new {pidfile}; exec sleep 30")
    yield pidfile
    os.kill(int(pidfile.read_text()), signal.SIGKILL)


def test_a_call_ends_with_its_program_though_a_child_of_it_keeps_the_output_open(fake: Path) -> None:
    pidfile = fake / "pid"
    program(fake, "leave", f"sleep 20 & echo $! > {pidfile}; echo hi")
    started = time.monotonic()
    assert programs.run(["leave"], timeout=600).stdout == "hi\n"
    assert time.monotonic() - started < 10
    assert _has_ended(int(pidfile.read_text())), "it is in the program's process group"


def test_all_of_a_program_in_the_background_has_ended_when_the_block_is_left(fake: Path) -> None:
    pidfile = fake / "pids"
    program(fake, "deaf", f"trap '' TERM; echo $$ >> {pidfile}; exec sleep 600")
    program(fake, "serve", "for each in $(seq 40); do deaf & done; wait")
    with programs.background(["serve"]):
        pids: list[int] = []
        while len(pids) < 40:
            time.sleep(0.01)
            pids = [int(line) for line in pidfile.read_text().split()] if pidfile.exists() else []
        assert all(is_alive(pid) for pid in pids)
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_while_a_program_starts_leaves_nothing_of_it_running(
    fake: Path, number: signal.Signals
) -> None:
    pid_file = fake / "pid"
    # Its own start is the moment: the parent has not come back from it when the signal arrives.
    program(fake, "starts", f"sleep 300 & echo $! > {pid_file}; kill -{number.name[3:]} $PPID; wait")
    script = """
import signal, sys
from soci_pipeline.machine.programs import run
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda *_: sys.exit(3))
run(["starts"])
"""
    for _ in range(4):
        done = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
        assert done.returncode == 3
        assert _has_ended(int(pid_file.read_text()))


def test_a_program_can_be_ended_by_every_signal_that_its_parent_can(fake: Path) -> None:
    program(fake, "shows", "grep SigBlk /proc/self/status")
    assert int(run(["shows"]).stdout.split()[1], 16) == 0


@pytest.mark.parametrize("given", [False, True], ids=["of this process", "given"])
def test_no_program_inherits_a_secret_of_this_process(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    for name in programs.SECRET_VARIABLES:
        monkeypatch.setenv(name, f"hunter2-{name}")
    program(fake, "show", "env; echo done")
    env = dict(os.environ) if given else None
    assert "hunter2" not in programs.run(["show"], env=env).stdout
    log = tmp_path / "log"
    with programs.background(["show"], env=env, log=log) as child:
        child.wait()
    assert "done" in log.read_text()
    assert "hunter2" not in log.read_text()


def test_a_daemon_that_keeps_the_output_open_lives_on_and_holds_nothing_up(fake: Path, daemon: Path) -> None:
    program(fake, "connect", f"setsid daemon & while ! [ -e {daemon} ]; do sleep 0.01; done; echo hi; echo err >&2")
    threads, files = threading.active_count(), _open_files()
    answer = programs.run(["connect"])
    assert (answer.stdout, answer.stderr_tail) == ("hi\n", "err\n")
    assert is_alive(int(daemon.read_text()))
    assert (threading.active_count(), _open_files()) == (threads, files)


def test_all_that_a_program_printed_comes_back_however_late_it_is_read(fake: Path, daemon: Path) -> None:
    program(fake, "connect", f"setsid daemon & while ! [ -e {daemon} ]; do sleep 0.01; done; seq 8000; printf end")
    lines = [*map(str, range(1, 8001)), "end"]
    with _logging(first_takes=2) as seen:
        assert programs.run(["connect"], stream=True).stdout == "\n".join(lines)
    assert seen == lines


def test_a_daemon_that_goes_on_printing_holds_nothing_up(fake: Path) -> None:
    pidfile = fake / "pid"
    program(fake, "chatter", f"echo $$ > {pidfile}; exec yes")
    program(fake, "connect", f"echo hi; setsid chatter & while ! [ -s {pidfile} ]; do sleep 0.01; done")
    try:
        assert programs.run(["connect"], timeout=1).stdout.startswith("hi\n")
    finally:
        # Nobody reads what it prints any more, which ends it too.
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pidfile.read_text()), signal.SIGKILL)


def test_the_last_words_of_a_child_that_ends_just_after_its_program_are_waited_for(fake: Path) -> None:
    program(fake, "early", "(sleep 0.2; echo late) & echo early")
    assert programs.run(["early"]).stdout == "early\nlate\n"


def test_a_deadline_holds_though_a_daemon_keeps_the_output_open(fake: Path, daemon: Path) -> None:
    program(fake, "slow", f"setsid daemon & while ! [ -e {daemon} ]; do sleep 0.01; done; sleep 60")
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"slow did not finish within 1 s"):
        programs.run(["slow"], timeout=1)
    assert time.monotonic() - started < 10


def test_a_deadline_holds_for_a_program_that_does_not_read_its_input(fake: Path) -> None:
    program(fake, "deaf", "exec sleep 20")
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"deaf did not finish within 0\.5 s"):
        programs.run(["deaf"], stdin=bytes(1 << 20), timeout=0.5)
    assert time.monotonic() - started < 10


def test_an_input_larger_than_a_pipe_arrives_whole(fake: Path) -> None:
    program(fake, "echoing", "exec cat")
    text = "line of input\n" * 100_000
    assert programs.run(["echoing"], stdin=text.encode()).stdout == text


def test_an_interrupted_block_ends_the_whole_process_group(fake: Path) -> None:
    pidfile = fake / "pid"
    program(fake, "serve", f"sleep 600 & echo $! > {pidfile}; wait")
    with pytest.raises(KeyboardInterrupt), programs.background(["serve"]) as child:  # noqa: PT012
        while not pidfile.exists() or not pidfile.read_text().strip():
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert child.returncode is not None
    assert _has_ended(int(pidfile.read_text()))


def test_a_child_does_not_inherit_an_ignored_interrupt(fake: Path) -> None:
    program(fake, "signals", "grep SigIgn /proc/self/status")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        answer = programs.run(["signals"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert int(answer.stdout.split()[1], 16) & (1 << (signal.SIGINT - 1)) == 0


def test_a_program_ends_when_the_process_that_waits_for_it_is_killed(fake: Path) -> None:
    pidfile = fake / "pid"
    program(fake, "build", f"echo $$ > {pidfile}; exec sleep 600")
    waiting = subprocess.Popen(
        [sys.executable, "-c", "from soci_pipeline.machine import programs; programs.run(['build'])"]
    )
    while not pidfile.exists() or not pidfile.read_text().strip():
        time.sleep(0.01)
    waiting.kill()
    waiting.wait()
    deadline = time.monotonic() + 10
    while is_alive(int(pidfile.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_lines_are_logged_while_the_program_runs(fake: Path) -> None:
    program(fake, "lines", f"echo one; echo two >&2; while ! [ -e {fake}/seen ]; do sleep 0.01; done")
    with _logging() as seen, ThreadPoolExecutor() as pool:
        running = pool.submit(contextvars.copy_context().run, programs.run, ["lines"], stream=True, timeout=60)
        while len(seen) < 2 and not running.done():
            time.sleep(0.01)
        assert not running.done()
        (fake / "seen").touch()
        running.result()
    assert sorted(seen) == ["one", "two"]


def test_a_program_that_prints_a_secret_shows_it_neither_in_the_log_nor_in_its_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = "echo token=t0psecret; echo second-line >&2; echo ok; exit 3"
    with (
        caplog.at_level(logging.INFO, "soci_pipeline"),
        concealing([b"t0psecret\nsecond-line\nok\n"]),
        pytest.raises(ToolFailed) as caught,
    ):
        run(["sh", "-c", script], stream=True)
    shown = "\n".join(record.getMessage() for record in caplog.records if record.levelno >= logging.INFO)
    assert "token=***" in shown
    assert "ok" in shown
    assert "t0psecret" not in shown + caught.value.reason
    assert "second-line" not in shown + caught.value.reason


def test_of_two_secrets_the_longer_one_is_concealed_whole() -> None:
    with concealing([b"abcd", b"abcdefgh"]):
        assert run(["echo", "abcdefgh abcd"]).stdout == "*** ***\n"
    assert run(["echo", "abcdefgh"]).stdout == "abcdefgh\n"


@pytest.mark.parametrize("script", ["yes", "yes >&2", "cat /dev/zero", "head -c 3000000 /dev/zero"])
def test_a_program_that_prints_more_than_it_may_is_ended_and_none_of_it_kept(fake: Path, script: str) -> None:
    program(fake, "talkative", script)
    with pytest.raises(programs.TooMuchOutput, match="talkative printed more than 100000 bytes") as caught:
        programs.run(["talkative"], max_output=100_000, timeout=60)
    assert len(str(caught.value)) < 200


def test_an_output_within_its_limit_is_kept_whole(fake: Path) -> None:
    program(fake, "modest", "head -c 100000 /dev/zero | tr '\\0' x; echo line >&2")
    answer = programs.run(["modest"], max_output=100_000)
    assert (len(answer.stdout), answer.stderr_tail) == (100_000, "line\n")


def test_the_status_and_both_outputs_of_a_failure_can_be_had(fake: Path) -> None:
    program(fake, "failing", "echo out; echo err >&2; exit 3")
    assert programs.run(["failing"], check=False) == programs.Completed("out\n", "err\n", 3)
    program(fake, "killed", "kill -9 $$")
    assert programs.run(["killed"], check=False).status == -9


@pytest.mark.parametrize("content", [b"#!/no/such/interpreter\n", b"MZ\x90\x00\x00", b"\x7fELF\x02\x01\x01junk"])
def test_a_program_that_is_not_for_this_machine_is_named(fake: Path, content: bytes) -> None:
    path = fake / "foreign"
    path.write_bytes(content)
    path.chmod(0o755)
    with pytest.raises(ToolFailed, match="foreign cannot be started") as caught:
        programs.run(["foreign"])
    assert caught.value.advice
    with pytest.raises(ToolFailed, match="foreign cannot be started"), programs.background(["foreign"]):
        pass


def test_a_missing_working_folder_is_not_taken_for_a_broken_program(fake: Path) -> None:
    program(fake, "fine", "exit 0")
    with pytest.raises(FileNotFoundError):
        programs.run(["fine"], cwd=fake / "nowhere")
