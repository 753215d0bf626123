"""What is built for others: a wheel and a source distribution that do their work without the orchestrator."""

import json
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from soci_pipeline.cli import COMMANDS
from soci_pipeline.machine.programs import find, run
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.server import serving
from tests.support.documentation import REPOSITORY, documented
from tests.support.images import indexable_archive

_UV = REPOSITORY / ".toolchain" / "uv" / "bin"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, built from what git tracks, without the network."""
    folder = tmp_path_factory.mktemp("package")
    run(["git", "clone", "--quiet", "--no-local", REPOSITORY, folder / "clone"])
    run(_hatchling(folder / "dist", "sdist", "wheel"), cwd=folder / "clone")
    return folder / "dist"


def _hatchling(target: Path, *kinds: str) -> list[str | Path]:
    targets = [word for kind in kinds for word in ("--target", kind)]
    return [sys.executable, "-m", "hatchling", "build", *targets, "--directory", target]


def _contents(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as archive:
        return {each.filename: each.CRC for each in archive.infolist()}


def test_the_wheel_holds_the_library_alone_and_says_that_it_is_typed(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = _contents(wheel)
    metadata = {name.partition(".dist-info/")[2] for name in names if ".dist-info/" in name}
    modules = {name for name in names if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in modules} == {"soci_pipeline"}
    assert {name for name in modules if not name.endswith(".py")} == {
        "soci_pipeline/py.typed",
        "soci_pipeline/troubleshooting/entries.md",
    }
    assert metadata == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert modules == set(run(["git", "ls-files", "."], cwd=REPOSITORY / "src").stdout.splitlines())


def test_the_wheel_has_nothing_that_only_the_demo_and_the_tests_need(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    outside = {path.name for folder in ("local_stack", "tests/support") for path in (REPOSITORY / folder).glob("*.py")}
    words = ("local_stack", "tests", "faults", "debian", "postgres", "demo")
    assert "debian_packages.py" in outside
    assert "faults.py" in outside
    assert [name for name in _contents(wheel) if any(word in name for word in words)] == []


def test_the_source_distribution_holds_the_library_and_what_describes_it(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {"/".join(name.split("/")[1:]) for name in archive.getnames()}
    described = {"README.md", "CHANGELOG.md", "LICENSE", "PKG-INFO", "pyproject.toml", ".gitignore"}
    assert {name for name in names if not name.startswith("src/soci_pipeline/")} == described


def test_the_source_distribution_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (sdist,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    run(["tar", "--extract", "--file", sdist, "--directory", tmp_path])
    (source,) = tmp_path.iterdir()
    run(_hatchling(tmp_path / "dist", "wheel"), cwd=source)
    (again,) = (tmp_path / "dist").glob("*.whl")
    assert _contents(again) == _contents(wheel)


@pytest.fixture(scope="module")
def environment(
    built: Path, tmp_path_factory: pytest.TempPathFactory, or_skip: Callable[[], AbstractContextManager[None]]
) -> Path:
    """An environment with the wheel and what it requires, and nothing else."""
    with or_skip():
        uv = find("uv", env={"PATH": f"{_UV}{os.pathsep}{os.environ['PATH']}"})
    (wheel,) = built.glob("*.whl")
    environment = tmp_path_factory.mktemp("installed") / "environment"
    run([uv, "venv", "--quiet", "--python", sys.executable, environment])
    pins: list[str | Path] = ["--constraint", REPOSITORY / "requirements" / "runtime.txt"]
    run([uv, "pip", "install", "--quiet", "--python", environment, *pins, wheel], timeout=600)
    listing = run([uv, "pip", "list", "--python", environment, "--format", "freeze"]).stdout
    there = {line.partition("==")[0] for line in listing.splitlines()}
    assert "soci-pipeline" in there
    assert not {"prefect", "boto3", "fastapi", "pytest"} & there
    return environment


def _clean(environment: Path, home: Path) -> dict[str, str]:
    return {"PATH": f"{environment / 'bin'}{os.pathsep}{os.defpath}", "HOME": str(home), "PYTHONPATH": ""}


def test_every_command_of_the_wheel_shows_its_help(environment: Path, tmp_path: Path) -> None:
    clean = _clean(environment, tmp_path)
    overview = run(["soci-pipeline", "--help"], env=clean, cwd=tmp_path).stdout
    for name in COMMANDS:
        assert name in overview
        assert "Exit statuses" in run(["soci-pipeline", name, "--help"], env=clean, cwd=tmp_path).stdout
    assert "demo" not in overview


def test_doctor_of_the_wheel_checks_the_machine_without_a_checkout(environment: Path, tmp_path: Path) -> None:
    answer = run(["soci-pipeline", "doctor", "--json"], env=_clean(environment, tmp_path), cwd=tmp_path).stdout
    checks = {each["name"]: each for each in json.loads(answer)["checks"]}
    assert checks["python"]["detail"].partition(", ")[2].startswith(str(environment / "bin"))
    assert checks["git"]["ok"]


def test_the_wheel_converts_pushes_and_verifies_in_an_environment_of_its_own(environment: Path, tmp_path: Path) -> None:
    indexable_archive(tmp_path / "image.tar")
    clean = _clean(environment, tmp_path)
    with serving(tmp_path / "registry") as address:
        block = documented("docs/commands.md", "soci-pipeline convert image.tar")
        said = block.run(tmp_path, replacing={"registry.example.com": address}, env=clean).stdout
        with RegistryClient(address) as client:
            assert client.tags.list("shop/web") == ("1.4",)
    assert "OK: verified" in said
