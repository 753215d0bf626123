"""A bounded run of each fuzz target; ``make fuzz`` runs them for longer."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_fuzzer_finds_nothing_in_some_seconds(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", "8", "--target", name, "--corpus", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert list((tmp_path / name).glob("seed-*"))
