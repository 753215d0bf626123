"""What is built for others: a wheel and a source distribution that do their work without the orchestrator."""

import os
import sys
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

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
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"soci_pipeline"}
    assert "soci_pipeline/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_source_distribution_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (sdist,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    run(["tar", "--extract", "--file", sdist, "--directory", tmp_path])
    (source,) = tmp_path.iterdir()
    run(_hatchling(tmp_path / "dist", "wheel"), cwd=source)
    (again,) = (tmp_path / "dist").glob("*.whl")
    assert _contents(again) == _contents(wheel)


def test_the_wheel_converts_pushes_and_verifies_in_an_environment_of_its_own(
    built: Path, tmp_path: Path, or_skip: Callable[[], AbstractContextManager[None]]
) -> None:
    with or_skip():
        uv = find("uv", env={"PATH": f"{_UV}{os.pathsep}{os.environ['PATH']}"})
    (wheel,) = built.glob("*.whl")
    environment = tmp_path / "environment"
    run([uv, "venv", "--quiet", "--python", sys.executable, environment])
    pins: list[str | Path] = ["--constraint", REPOSITORY / "requirements" / "runtime.txt"]
    run([uv, "pip", "install", "--quiet", "--python", environment, *pins, wheel], timeout=600)
    listing = run([uv, "pip", "list", "--python", environment, "--format", "freeze"]).stdout
    there = {line.partition("==")[0] for line in listing.splitlines()}
    assert "soci-pipeline" in there
    assert not {"prefect", "boto3", "fastapi", "pytest"} & there

    indexable_archive(tmp_path / "image.tar")
    clean = {"PATH": f"{environment / 'bin'}{os.pathsep}{os.defpath}", "HOME": str(tmp_path), "PYTHONPATH": ""}
    with serving(tmp_path / "registry") as address:
        block = documented("README.md", "soci-pipeline convert image.tar")
        said = block.run(tmp_path, replacing={"registry.example.com": address}, env=clean).stdout
        with RegistryClient(address) as client:
            assert client.tags.list("shop/web") == ("1.4",)
    assert "all is well" in said
