"""Processes found and ended by their environment, with real ones."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soci_pipeline.machine.marked_processes import Mark

MARK = Mark("SOCI_PIPELINE_TEST", "0123abcd")


@contextmanager
def started(script: str = "exec sleep 60", **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process; it is there once it has said so."""
    child = subprocess.Popen(
        ["sh", "-c", f"echo; {script}"], env={"PATH": os.environ["PATH"]} | environment, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
    finally:
        child.kill()
        child.communicate()


def _found() -> list[int]:
    return [process.pid for process in MARK.processes()]


def test_processes_are_found_by_a_variable_and_its_whole_value() -> None:
    with (
        started(SOCI_PIPELINE_TEST="0123abcd", OTHER="ä=1") as mine,
        started(SOCI_PIPELINE_TEST="0123abcde"),
        started(OTHER="SOCI_PIPELINE_TEST=0123abcd"),
    ):
        (process,) = MARK.processes()
        assert process.pid == mine.pid
        assert process.environment["OTHER"] == "ä=1"
    assert _found() == []


def test_what_a_marked_process_starts_is_found_when_its_parent_is_gone() -> None:
    with started("sleep 60 & echo $!", SOCI_PIPELINE_TEST=MARK.value) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.wait()
        assert _found() == [child]
        assert MARK.end(grace=5) == ()
        assert _found() == []


def test_a_process_that_waits_to_be_collected_does_not_count() -> None:
    with started("exit", SOCI_PIPELINE_TEST=MARK.value):
        time.sleep(0.2)
        assert _found() == []


def test_a_process_is_found_while_it_becomes_another_program() -> None:
    # In the midst of `exec` the kernel shows no environment; this one comes there every few milliseconds.
    again = 'n=0; while [ $n -lt 2000 ]; do n=$((n+1)); done; exec sh -c "$AGAIN"'
    with started(f"export AGAIN='{again}'; {again}", SOCI_PIPELINE_TEST=MARK.value) as changing:
        for _ in range(400):
            assert _found() == [changing.pid]


def test_an_id_that_was_given_to_another_process_is_not_signalled() -> None:
    with started() as other:
        MARK.send(other.pid, signal.SIGKILL)
        time.sleep(0.1)
        assert other.poll() is None


def test_a_signal_to_a_process_that_has_ended_is_nothing() -> None:
    with started("exit", SOCI_PIPELINE_TEST=MARK.value) as ended:
        ended.wait()
        MARK.send(ended.pid, signal.SIGTERM)


def test_processes_end_by_sigterm_and_those_that_ignore_it_by_sigkill() -> None:
    stubborn = "trap '' TERM; echo; while :; do sleep 0.1; done"
    with (
        started(SOCI_PIPELINE_TEST=MARK.value) as mild,
        started(stubborn, SOCI_PIPELINE_TEST=MARK.value) as ignoring,
        started() as other,
    ):
        assert ignoring.stdout is not None
        ignoring.stdout.readline()
        assert MARK.end(grace=0.5) == ()
        assert mild.wait() == -signal.SIGTERM
        assert ignoring.wait() == -signal.SIGKILL
        assert other.poll() is None


def test_what_is_started_while_its_parent_is_ended_ends_too(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    script = f"trap 'sleep 60 & echo $! > {pidfile}; exit' TERM; echo; while :; do sleep 0.1; done"
    with started(script, SOCI_PIPELINE_TEST=MARK.value) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        assert MARK.end(grace=0.5) == ()
        assert pidfile.exists()
        assert _found() == []


def test_spared_processes_live_on() -> None:
    with started(SOCI_PIPELINE_TEST=MARK.value) as spared, started(SOCI_PIPELINE_TEST=MARK.value) as ended:
        assert MARK.end(grace=5, spared={spared.pid}) == ()
        assert ended.wait() == -signal.SIGTERM
        assert spared.poll() is None
