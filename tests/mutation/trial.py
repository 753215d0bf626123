"""Run tests against mutants of a module: ``python -m tests.mutation.trial FILE TEST...``, in a copy of the repository.

Each line of standard input is a version of the file, as a JSON string; each line of output says what the tests made of
it: killed, survived or timed out. The first version is the original, whose time sets the limit for the others. pytest
and what the project uses are imported once; each version runs in a process that is forked from there.
"""

import importlib
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path

import hypothesis
import pytest

_IMPORTED = ("docker", "h11", "httpx", "pydantic", "starlette.applications", "yaml")
_SPARE_S = 20.0
_TIMES_AS_LONG = 3.0
_MEMORY_BYTES = 4 << 30  # a mutant may collect without end


class _Quickly:
    """Ends the run soon where a mutant is noticed: property tests come last, and look for no smaller example."""

    def pytest_sessionstart(self) -> None:
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile("trial", hypothesis.settings(), phases=phases)
        hypothesis.settings.load_profile("trial")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: hasattr(getattr(item, "obj", None), "hypothesis"))


def _in_the_child(tests: list[str], log: Path) -> int:
    """Run pytest and return its status; its output goes to the log."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "pytest_timeout", "--basetemp", str(log.parent / "base")]
    return pytest.main([*options, *tests], plugins=[_Quickly()])


def _run(tests: list[str], log: Path, limit_s: float | None) -> str:
    child = os.fork()
    if child == 0:
        status = 70
        try:
            status = _in_the_child(tests, log)
        finally:
            os._exit(status)
    descriptor = os.pidfd_open(child)
    try:
        ended, _, _ = select.select([descriptor], [], [], limit_s)
    finally:
        # What a test has left behind ends too.
        os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(descriptor)
    if not ended:
        return "timed out"
    return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"


def main() -> None:
    """Answer each version of the file, but only the first where it does not pass."""
    path, tests, log = Path(sys.argv[1]), sys.argv[2:], Path("trial.log").resolve()
    for name in _IMPORTED:
        importlib.import_module(name)
    started = time.monotonic()
    sys.stdin.readline()
    outcome = _run(tests, log, None)
    print(outcome, flush=True)
    if outcome != "survived":
        return
    limit_s = _TIMES_AS_LONG * (time.monotonic() - started) + _SPARE_S
    # Only the original has bytecode, and no version has its time: Python compiles each anew.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    for number, line in enumerate(sys.stdin):
        path.write_text(json.loads(line))
        os.utime(path, (number, number))
        print(_run(tests, log, limit_s), flush=True)


if __name__ == "__main__":
    main()
