"""OCI archives from wheels, where nothing can be built."""

import tarfile
import zipfile
from pathlib import Path

import httpx
import pytest

from local_stack.prebuilt_images import PACKAGE, prebuilt_archives, served
from local_stack.toolchain import Toolchain
from soci_pipeline.builders.import_image import import_image
from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.manifest import ImageManifest
from soci_pipeline.oci.platform import Platform

PLATFORMS = (Platform("linux", "amd64"), Platform("linux", "arm64"))


@pytest.fixture
def tools(tmp_path: Path) -> Toolchain:
    """A toolchain folder whose wheels were fetched before."""
    for machine in ("x86_64", "aarch64"):
        folder = tmp_path / "tools" / "wheels" / f"{PACKAGE.replace('==', '-')}-manylinux2014_{machine}"
        folder.mkdir(parents=True)
        with zipfile.ZipFile(folder / "some.whl", "w") as wheel:
            wheel.writestr("package/core.so", machine)
    return Toolchain(tmp_path / "tools")


@pytest.fixture
def application(tmp_path: Path) -> Path:
    (tmp_path / "app" / "__pycache__").mkdir(parents=True)
    (tmp_path / "app" / "service.py").write_text("print()")
    (tmp_path / "app" / "__pycache__" / "service.pyc").write_text("x")
    return tmp_path / "app"


def test_each_platform_gets_an_archive_that_imports_as_its_image(
    tmp_path: Path, tools: Toolchain, application: Path
) -> None:
    folder = prebuilt_archives(tmp_path / "out", PLATFORMS, application=application, toolchain=tools)
    manifests = []
    for platform in PLATFORMS:
        layout = import_image(folder / f"{platform.slug}.tar", tmp_path / platform.slug, platform=platform)
        manifest = layout.read_document(layout.root())
        assert isinstance(manifest, ImageManifest)
        with tarfile.open(layout.blob_path(manifest.layers[1].digest)) as layer:
            assert layer.getnames() == ["srv/hello/service.py"]
        manifests.append(layout.root().digest)
    assert len(set(manifests)) == 2


def test_the_archives_repeat(tmp_path: Path, tools: Toolchain, application: Path) -> None:
    first = prebuilt_archives(tmp_path / "1", PLATFORMS, application=application, toolchain=tools)
    second = prebuilt_archives(tmp_path / "2", PLATFORMS, application=application, toolchain=tools)
    assert (first / "linux-arm64.tar").read_bytes() == (second / "linux-arm64.tar").read_bytes()


def test_a_platform_without_wheels_is_refused(tmp_path: Path, tools: Toolchain, application: Path) -> None:
    with pytest.raises(InvalidInput, match="linux/s390x"):
        prebuilt_archives(tmp_path / "out", [Platform("linux", "s390x")], application=application, toolchain=tools)


def test_a_worker_fetches_the_archives_over_http(tmp_path: Path) -> None:
    (tmp_path / "linux-amd64.tar").write_bytes(b"archive")
    with served(tmp_path) as address:
        assert httpx.get(f"{address}/linux-amd64.tar", trust_env=False).content == b"archive"
        assert httpx.get(f"{address}/../secret", trust_env=False).status_code == 404
