"""The processes of this machine's worker, found by what the kernel shows of their environment."""

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soci_pipeline.capacity.machine import RUN_ID, WORK_FOLDER, Machine

RUN = str(uuid.UUID(int=7))


@contextmanager
def sleeping(
    folder: Path, run: str | None = None, *, script: str = "exec sleep 60"
) -> Iterator[subprocess.Popen[bytes]]:
    environment = {"PATH": os.environ["PATH"], WORK_FOLDER: str(folder)} | ({RUN_ID: run} if run else {})
    child = subprocess.Popen(["sh", "-c", script], env=environment)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def test_runs_are_known_by_their_processes_and_forgotten_with_them(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with sleeping(tmp_path), sleeping(tmp_path, uuid.UUID(RUN).hex) as run:
        assert machine.runs() == (RUN,)
        run.kill()
        run.wait()
        assert machine.runs() == ()
        assert len(list(machine.processes())) == 1, "the worker itself is no run"


def test_another_workers_runs_are_not_ours(tmp_path: Path) -> None:
    with sleeping(tmp_path / "other", RUN):
        assert Machine(tmp_path).runs() == ()


def test_everything_is_ended_and_nothing_else_is(tmp_path: Path) -> None:
    stubborn = "trap '' TERM; while :; do sleep 0.2; done"
    with (
        sleeping(tmp_path, script=stubborn) as worker,
        sleeping(tmp_path, RUN, script=stubborn) as run,
        sleeping(tmp_path / "other", RUN) as other,
    ):
        assert Machine(tmp_path).end_everything() == {RUN}
        assert worker.wait() == run.wait() == -signal.SIGKILL
        assert other.poll() is None
    assert Machine(tmp_path).end_everything() == frozenset()


def test_a_process_is_known_while_it_becomes_another_program(tmp_path: Path) -> None:
    # In the midst of `exec` the kernel shows no environment; this one comes there every few milliseconds.
    again = 'n=0; while [ $n -lt 2000 ]; do n=$((n+1)); done; exec sh -c "$AGAIN"'
    with sleeping(tmp_path, RUN, script=f"export AGAIN='{again}'; {again}") as run:
        machine = Machine(tmp_path)
        for _ in range(400):
            assert machine.runs() == (RUN,)
        assert run.poll() is None
