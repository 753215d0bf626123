"""The property tests of the unit tier with all their examples; there they try a sample."""

import os
import subprocess
import sys

import pytest

from tests.support.documentation import REPOSITORY
from tests.support.examples import THOROUGH

pytestmark = pytest.mark.timeout(900)


def test_the_properties_hold_for_every_example() -> None:
    tests = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-m", "hypothesis", "tests/unit"]
    # In a session of its own: the workers of this run's pytest must not be taken for that one's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*tests, "--hypothesis-profile", THOROUGH],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
