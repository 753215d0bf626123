"""The command `push` with layouts that somebody else has written."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import OCI_CONFIG
from soci_pipeline.registry.server import serving
from tests.support.faults import FaultPlan
from tests.support.images import AMD64, add_attestation, add_image, image_layout, only_manifest
from tests.support.several_images import one_platform_twice, several_images

_SIGNATURE = b'{"architecture":"","os":"","created":"%d"}'


@pytest.fixture
def plan() -> FaultPlan:
    """Records the requests."""
    return FaultPlan()


@pytest.fixture
def address(tmp_path: Path, plan: FaultPlan) -> Iterator[str]:
    with serving(tmp_path / "registry", middleware=plan.middleware) as address:
        yield address


def _uploaded(plan: FaultPlan) -> list[str]:
    return [path for method, path in plan.requests if method in ("POST", "PUT", "PATCH")]


def _link_out(blob: Path) -> None:
    blob.rename(blob.parents[3] / "outside")
    blob.symlink_to(blob.parents[3] / "outside")


def _link_folder_out(blob: Path) -> None:
    blob.parent.rename(blob.parents[3] / "outside")
    blob.parent.symlink_to(blob.parents[3] / "outside")


def _pipe(blob: Path) -> None:
    blob.unlink()
    os.mkfifo(blob)


@pytest.mark.parametrize("spoil", [_link_out, _link_folder_out, _pipe])
def test_a_blob_that_is_not_a_regular_file_inside_the_layout_is_not_pushed(
    spoil: Callable[[Path], None],
    address: str,
    plan: FaultPlan,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    layout = image_layout(tmp_path / "layout")
    spoil(layout.blob_path(only_manifest(layout).layers[0].digest))
    assert main(["push", str(layout.path), f"{address}/team/app:v1"]) == ExitCode.HOSTILE_ARCHIVE
    assert "cp -rL" in capsys.readouterr().err
    assert _uploaded(plan) == []


def test_a_blob_of_another_content_is_found_before_its_last_byte_is_sent(
    address: str, plan: FaultPlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = image_layout(tmp_path / "layout")
    blob = layout.blob_path(only_manifest(layout).layers[0].digest)
    size = blob.stat().st_size
    blob.chmod(0o644)
    blob.write_bytes(b"\0" * size)
    assert main(["push", str(layout.path), f"{address}/team/app:v1", "--jobs", "1"]) == ExitCode.DAMAGED_CONTENT
    assert f"in layout {layout.path} has the digest sha256:" in capsys.readouterr().err
    assert not [path for path in _uploaded(plan) if "/manifests/" in path]


def test_a_layout_that_is_reached_through_a_link_is_pushed(address: str, tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout")
    (tmp_path / "link").symlink_to(layout.path)
    assert main(["push", str(tmp_path / "link"), f"{address}/team/app:v1"]) == ExitCode.OK
    assert Layout.open(tmp_path / "registry" / "team+app").has(layout.root())


def test_of_several_images_one_is_chosen_by_name_or_digest(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = several_images(tmp_path / "layout", ["web-1", "cache-7"])
    first, second = layout.roots()
    assert main(["push", str(layout.path), f"{address}/team/app:v1"]) == ExitCode.INVALID_INPUT
    said = capsys.readouterr().err
    assert "lists 2 images" in said
    assert f"web-1  {first.digest}" in said
    assert f"cache-7  {second.digest}" in said
    assert "--ref NAME" in said
    for tag, ref, root in (("v1", "cache-7", second), ("v2", first.digest, first)):
        assert main(["push", str(layout.path), f"{address}/team/app:{tag}", "--ref", ref]) == ExitCode.OK
        assert f"team/app@{root.digest}, tagged {tag}" in capsys.readouterr().out
    assert main(["push", str(layout.path), f"{address}/team/app:v1", "--ref", "web-2"]) == ExitCode.INVALID_INPUT
    assert "has no image 'web-2'" in capsys.readouterr().err


def test_an_image_with_two_names_is_pushed_without_a_choice(address: str, tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout")
    names = [{"org.opencontainers.image.ref.name": name} for name in ("v1", "latest")]
    layout.set_roots([layout.root().annotated(annotations=each) for each in names])
    assert main(["push", str(layout.path), f"{address}/team/app:v1"]) == ExitCode.OK


def test_an_image_index_with_a_platform_twice_is_not_pushed(
    address: str, plan: FaultPlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = one_platform_twice(tmp_path / "layout")
    assert main(["push", str(layout.path), f"{address}/team/app:v1"]) == ExitCode.INVALID_INPUT
    assert "2 different images for linux/amd64" in capsys.readouterr().err
    assert _uploaded(plan) == []


def test_what_lies_beside_an_image_does_not_keep_it_from_being_pushed(
    address: str, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    image = add_image(layout, AMD64)
    configs = [layout.add_bytes(data, OCI_CONFIG) for data in (b"{}", _SIGNATURE % 1, _SIGNATURE % 2)]
    signatures = [layout.add_document(ImageManifest(config=config)) for config in configs]
    artifact = layout.add_document(ImageManifest(config=layout.add_bytes(b"{}", "application/vnd.oci.empty.v1+json")))
    attestation = add_attestation(layout, image)
    layout.set_roots([layout.add_document(ImageIndex(manifests=(image, *signatures, artifact, attestation)))])
    assert main(["push", str(layout.path), f"{address}/team/app:v1"]) == ExitCode.OK
    assert "tagged v1" in capsys.readouterr().out
