import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from soci_pipeline import process
from soci_pipeline.errors import DeadlineExceeded, ToolFailed, ToolMissing
from soci_pipeline.process import concealing, run


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _has_ended(pid: int) -> bool:
    """Signals to a group arrive one by one: a grandchild may still be on its way out when its parent was waited for."""
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not _alive(pid)


def test_a_program_s_output_comes_back_whole(fake: Path) -> None:
    program(fake, "talk", "cat; echo out; echo err >&2")
    answer = process.run(["talk"], stdin=b"in\n")
    assert answer.stdout == "in\nout\n"
    assert answer.stderr_tail == "err\n"


def test_a_missing_program_is_named_with_its_package() -> None:
    with pytest.raises(ToolMissing) as caught:
        process.run(["no-such-program"], package="some-package")
    assert "no-such-program" in caught.value.reason
    assert "some-package" in (caught.value.advice or "")


def test_a_failure_names_the_program_its_exit_status_and_its_last_lines(fake: Path) -> None:
    program(fake, "broken", "seq 100; echo the reason >&2; exit 7")
    with pytest.raises(ToolFailed) as caught:
        process.run(["broken"])
    assert "broken ended with exit status 7" in caught.value.reason
    assert "the reason" in caught.value.reason


def test_a_signal_is_told_apart_from_an_exit_status(fake: Path) -> None:
    program(fake, "shot", "kill -KILL $$")
    with pytest.raises(ToolFailed, match="was ended by SIGKILL"):
        process.run(["shot"])


def test_a_deadline_ends_the_program_and_its_children(fake: Path) -> None:
    pidfile = fake / "pid"
    program(fake, "slow", f"sleep 600 & echo $! > {pidfile}; wait")
    with pytest.raises(DeadlineExceeded, match=r"slow did not end within 0\.5 s"):
        process.run(["slow"], timeout=0.5)
    assert _has_ended(int(pidfile.read_text()))


def test_an_interrupted_block_ends_the_whole_process_group(fake: Path) -> None:
    pidfile = fake / "pid"
    program(fake, "serve", f"sleep 600 & echo $! > {pidfile}; wait")
    with pytest.raises(KeyboardInterrupt), process.background(["serve"]) as child:  # noqa: PT012
        while not pidfile.exists() or not pidfile.read_text().strip():
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert child.returncode is not None
    assert _has_ended(int(pidfile.read_text()))


def test_a_child_does_not_inherit_an_ignored_interrupt(fake: Path) -> None:
    program(fake, "signals", "grep SigIgn /proc/self/status")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        answer = process.run(["signals"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert int(answer.stdout.split()[1], 16) & (1 << (signal.SIGINT - 1)) == 0


def test_a_program_ends_when_the_process_that_waits_for_it_is_killed(fake: Path) -> None:
    pidfile = fake / "pid"
    program(fake, "build", f"echo $$ > {pidfile}; exec sleep 600")
    waiting = subprocess.Popen([sys.executable, "-c", "from soci_pipeline import process; process.run(['build'])"])
    while not pidfile.exists() or not pidfile.read_text().strip():
        time.sleep(0.01)
    waiting.kill()
    waiting.wait()
    deadline = time.monotonic() + 10
    while _alive(int(pidfile.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_lines_are_handed_over_while_the_program_runs(fake: Path) -> None:
    program(fake, "lines", "echo one; echo two >&2")
    seen: list[str] = []
    process.run(["lines"], on_line=seen.append)
    assert sorted(seen) == ["one\n", "two\n"]


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
