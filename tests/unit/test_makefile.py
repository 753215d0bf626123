"""`make` on a machine that lacks something: it names the package before anything is complete."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.documentation import documents

REPOSITORY = Path(__file__).resolve().parents[2]
_MAKE = shutil.which("make")

pytestmark = pytest.mark.skipif(_MAKE is None, reason="no make on this machine")


def _make(target: str, programs: Path) -> subprocess.CompletedProcess[str]:
    """Run make with a PATH of one folder."""
    environment = {"PATH": str(programs), "HOME": str(programs)}
    command = [str(_MAKE), "-C", str(REPOSITORY), target]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def _program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def _python(folder: Path, *, failing: str = "nothing") -> None:
    """A python3 that is the real one, but for programs in which some word stands."""
    real = os.path.realpath(sys.executable)
    _program(folder, "python3", f'case "$*" in *{failing}*) exit 1;; *) exec {real} "$@";; esac')


def test_a_machine_with_everything_passes(tmp_path: Path) -> None:
    _python(tmp_path)
    _program(tmp_path, "git", "true")
    done = _make("prerequisites", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_python_is_named(tmp_path: Path) -> None:
    _program(tmp_path, "git", "true")
    done = _make("prerequisites", tmp_path)
    assert done.returncode != 0
    assert "install the package python3\n" in done.stderr


def test_a_python_that_is_too_old_is_not_taken(tmp_path: Path) -> None:
    _python(tmp_path, failing="version_info")
    _program(tmp_path, "git", "true")
    done = _make("prerequisites", tmp_path)
    assert done.returncode != 0
    assert "Python 3.11 or newer is missing" in done.stderr


def test_a_missing_git_is_named(tmp_path: Path) -> None:
    _python(tmp_path)
    done = _make("prerequisites", tmp_path)
    assert done.returncode != 0
    assert "install the package git\n" in done.stderr


def test_a_python_without_venv_is_named(tmp_path: Path) -> None:
    _python(tmp_path, failing="ensurepip")
    _program(tmp_path, "git", "true")
    done = _make("prerequisites", tmp_path)
    assert done.returncode != 0
    assert "install the package python3-venv\n" in done.stderr


def test_missing_certificates_are_named(tmp_path: Path) -> None:
    _python(tmp_path, failing="get_default_verify_paths")
    _program(tmp_path, "git", "true")
    done = _make("prerequisites", tmp_path)
    assert done.returncode != 0
    assert "install the package ca-certificates\n" in done.stderr


@pytest.mark.parametrize("target", ["install", "demo", "test", "test-unit"])
def test_every_command_for_a_newcomer_checks_first(target: str) -> None:
    """With nothing there, make's own plan begins with the check (``-n`` prints and runs nothing)."""
    command = [str(_MAKE), "-n", "--always-make", "-C", str(REPOSITORY), target]
    plan = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    first = plan.find("python3-venv")
    assert 0 <= first < plan.find("pip install")


def test_the_worker_image_is_built_for_this_machine_and_given_a_name(tmp_path: Path) -> None:
    _python(tmp_path)
    _program(tmp_path, "docker", f'echo "$@" >"{tmp_path}/called"')
    done = _make("image", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    file = "deployments/worker-image/Dockerfile"
    words = (tmp_path / "called").read_text().split()
    assert words == ["buildx", "build", "--load", "--file", file, "--tag", "soci-pipeline/worker:local", "."]


@pytest.mark.parametrize("target", ["check", "format"])
def test_every_document_is_formatted_but_those_that_a_program_writes(target: str) -> None:
    """By make as by the hook of a commit."""
    command = [str(_MAKE), "-n", "-C", str(REPOSITORY), target]
    plan = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    (listing,) = re.findall(r"(git ls-files .*?) \| xargs .*mdformat", plan)
    listed = subprocess.run(listing, shell=True, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    everything = {path.relative_to(REPOSITORY).as_posix() for path in documents()}
    generated = everything - set(listed.split("\0"))
    assert "docs/benchmarks.md" in generated
    (repository,) = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    (hook,) = [each for each in repository["hooks"] if each["id"] == "documents"]
    assert generated == {name for name in everything if re.search(hook["exclude"], name)}
