"""What the benchmarks say of whole processes is that of the process, whatever the one that measures holds."""

import sys
from pathlib import Path

import pytest

from benchmarks.processes import Runs, Usage, measured
from soci_pipeline.errors import ToolFailed
from soci_pipeline.machine.programs import run

MIB = 1 << 20


def test_the_peak_is_that_of_the_program_and_not_of_the_process_that_measures() -> None:
    held = b"x" * (150 * MIB)
    small = measured([sys.executable, "-S", "-c", "pass"])
    large = measured([sys.executable, "-S", "-c", f"held = b'x' * {100 * MIB}"])
    assert small.peak_bytes < 60 * MIB < 100 * MIB < large.peak_bytes < len(held)


def test_cpu_time_of_children_counts() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    assert measured([sys.executable, "-c", code]).cpu_s >= 0.3


def test_what_a_program_writes_is_counted_even_if_it_is_removed(tmp_path: Path) -> None:
    if run(["stat", "--file-system", "--format", "%T", tmp_path]).stdout.strip() == "tmpfs":
        pytest.skip("the folder is in memory, and only writing to a disk is counted")
    path = tmp_path / "large"
    code = f"import pathlib; p = pathlib.Path({str(path)!r}); p.write_bytes(bytes({8 * MIB})); p.unlink()"
    assert measured([sys.executable, "-c", code]).written_bytes >= 8 * MIB


def test_a_program_that_fails_is_an_error_with_its_last_words() -> None:
    with pytest.raises(ToolFailed, match="enough of this"):
        measured([sys.executable, "-c", "import sys; sys.exit('enough of this')"])


def test_medians_hide_one_disturbed_run() -> None:
    runs = Runs([Usage(seconds, seconds / 2, peak, 0) for seconds, peak in ((2.0, 5), (90.0, 7), (4.0, 6))])
    assert (runs.wall, runs.cpu, runs.peak) == (4.0, 2.0, 7)
