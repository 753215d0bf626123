"""The last release of Prefect 3.8, which installations may still have: the service tier passes on it too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from soci_pipeline.machine.programs import run
from tests.support.documentation import REPOSITORY

pytestmark = [pytest.mark.first, pytest.mark.timeout(1500)]

OLDER = "prefect==3.8.8"


def test_the_service_tier_passes_on_the_last_prefect_3_8(tmp_path: Path) -> None:
    uv = REPOSITORY / ".toolchain" / "uv" / "bin" / "uv"
    python = tmp_path / "venv" / "bin" / "python"
    run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"])
    install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python]
    run([*install, "--require-hashes", "-r", REPOSITORY / "requirements" / "development.txt"], timeout=600)
    run([*install, "--no-deps", "--no-build-isolation", "--editable", REPOSITORY], timeout=600)
    run([*install, OLDER, "fastapi<0.151"], timeout=600)
    version = run([python, "-c", "import prefect; print(prefect.__version__)"]).stdout.strip()
    assert f"prefect=={version}" == OLDER

    tests: list[str | Path] = [python, "-m", "pytest", "-p", "no:cacheprovider", "tests/service", "-n", "2"]
    # In a session of its own: the workers of this run's pytest must not be taken for that one's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*tests, "--dist", "loadgroup", "--no-loadscope-reorder"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
