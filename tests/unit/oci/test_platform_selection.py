"""Platforms of an index that were not saved: what is named, what may be pushed, and what goes with a platform."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import DamagedContent, ExitCode, InvalidInput
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import MAX_LISTED, ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import DOCKER_LIST, OCI_MANIFEST
from soci_pipeline.oci.platform import Platform
from soci_pipeline.oci.platform_selection import check_complete, select_platforms
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.server import serving
from soci_pipeline.soci.index.convert import convert
from soci_pipeline.soci.index.records import IndexVersion, SociOptions
from tests.support.archives import oci_archive
from tests.support.faults import FaultPlan
from tests.support.images import AMD64, ARM64, add_artifact, add_attestation, add_image, as_artifact, image_layout

ARM_V7 = Platform("linux", "arm", "v7")
EVERYTHING = SociOptions(min_layer_size=0)


@pytest.fixture
def plan() -> FaultPlan:
    """Records the requests."""
    return FaultPlan()


@pytest.fixture
def address(tmp_path: Path, plan: FaultPlan) -> Iterator[str]:
    with serving(tmp_path / "registry", middleware=plan.middleware) as address:
        yield address


def _uploads(plan: FaultPlan) -> list[str]:
    return [path for method, path in plan.requests if method in ("POST", "PUT", "PATCH")]


def _rooted(layout: Layout, *manifests: Descriptor, media_type: str | None = None) -> Layout:
    index = ImageIndex(manifests=manifests)
    index = index if media_type is None else index.replaced(media_type=media_type)
    layout.set_roots([layout.add_document(index)])
    return layout


def _lose(layout: Layout, item: Descriptor, part: str = "manifest") -> None:
    """Remove a part of an image, as if it had not been saved."""
    manifest = layout.read_document(item)
    assert isinstance(manifest, ImageManifest)
    lost = {"manifest": item, "config": manifest.config, "layer": manifest.layers[-1]}[part]
    layout.blob_path(lost.digest).unlink()


def _partly_saved(path: Path, part: str = "manifest") -> Layout:
    """An index of three platforms with attestations, of which arm64 was not saved."""
    layout = Layout.create(path)
    images = [add_image(layout, platform) for platform in (AMD64, ARM64, ARM_V7)]
    attestations = [add_attestation(layout, image) for image in images]
    _rooted(layout, *images, *attestations)
    _lose(layout, images[1], part)
    return layout


def _children(layout: Layout, root: Descriptor) -> list[str]:
    document = layout.read_document(root)
    assert isinstance(document, ImageIndex)
    return [str(child.platform or child.media_type) for child in document.manifests]


@pytest.mark.parametrize("part", ["manifest", "config", "layer"])
def test_a_push_of_a_platform_that_was_not_saved_names_the_complete_ones_and_sends_nothing(
    address: str, plan: FaultPlan, tmp_path: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = _partly_saved(tmp_path / "layout", part)
    assert main(["push", str(layout.path), f"{address}/app:v1"]) == ExitCode.DAMAGED_CONTENT
    said = capsys.readouterr().err
    assert "linux/arm64: blob sha256:" in said
    assert "--platform linux/amd64 --platform linux/arm/v7" in said
    assert _uploads(plan) == []


@pytest.mark.parametrize("part", ["manifest", "config", "layer"])
def test_a_push_of_chosen_platforms_drops_the_others_with_their_attestations(
    address: str, tmp_path: Path, part: str
) -> None:
    layout = _partly_saved(tmp_path / "layout", part)
    before = sorted(path.name for path in layout.path.rglob("*"))
    options = ["--platform", "linux/amd64,linux/arm/v7", "--platform", "linux/amd64"]
    assert main(["push", str(layout.path), f"{address}/app:v1", *options]) == ExitCode.OK
    with RegistryClient(address) as client:
        _, data = client.manifests.get("app", "v1")
    pushed = layout.read_document(layout.root())
    assert isinstance(pushed, ImageIndex)
    kept = [child for child in pushed.manifests if child.digest.encode() in data]
    assert [str(child.platform) for child in kept] == [
        "linux/amd64",
        "linux/arm/v7",
        "unknown/unknown",
        "unknown/unknown",
    ]
    assert pushed.manifests[1].digest.encode() not in data
    assert sorted(path.name for path in layout.path.rglob("*")) == before


def test_a_selection_of_everything_keeps_the_digest(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    _rooted(layout, add_image(layout, AMD64), add_image(layout, ARM64))
    selected = select_platforms(layout, layout.roots(), [ARM64, AMD64])
    assert selected.roots() == layout.roots()


@pytest.mark.parametrize(
    ("platform", "status", "reason"),
    [
        ("linux/s390x", ExitCode.INVALID_INPUT, "It has linux/amd64, linux/arm64, linux/arm/v7."),
        ("linux/arm64", ExitCode.DAMAGED_CONTENT, "Complete: linux/amd64, linux/arm/v7."),
        ("linux/arm64/v8", ExitCode.DAMAGED_CONTENT, "Complete: linux/amd64, linux/arm/v7."),
        ("linux", ExitCode.INVALID_INPUT, "not a valid platform: 'linux'"),
        ("", ExitCode.INVALID_INPUT, "not a valid platform: ''"),
    ],
)
def test_a_platform_that_cannot_be_pushed_is_refused_before_anything_is_sent(
    address: str, plan: FaultPlan, tmp_path: Path, platform: str, status: int, reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    layout = _partly_saved(tmp_path / "layout")
    options = ["--platform", "linux/amd64", "--platform", platform]
    assert main(["push", str(layout.path), f"{address}/app:v1", *options]) == status
    assert reason in capsys.readouterr().err
    assert _uploads(plan) == []
    assert main(["convert", str(layout.path), str(tmp_path / "result"), *options]) == status
    assert not (tmp_path / "result").exists()


def test_where_no_platform_is_complete_there_is_none_to_propose(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    images = [add_image(layout, AMD64), add_image(layout, ARM64)]
    _rooted(layout, *images)
    for image in images:
        _lose(layout, image, "layer" if image.platform == AMD64 else "manifest")
    with pytest.raises(DamagedContent, match=r"(?s)linux/amd64: .*linux/arm64: ") as caught:
        check_complete(layout, layout.roots())
    assert str(caught.value.advice).startswith("No platform is complete.")


def test_a_blob_that_is_cut_off_is_as_good_as_missing(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    images = [add_image(layout, AMD64), add_image(layout, ARM64)]
    _rooted(layout, *images)
    manifest = layout.read_document(images[1])
    assert isinstance(manifest, ImageManifest)
    short = layout.blob_path(manifest.layers[1].digest)
    data = short.read_bytes()
    short.unlink()
    short.write_bytes(data[:-1])
    with pytest.raises(DamagedContent, match=r"linux/arm64: blob .* is missing or truncated"):
        check_complete(layout, layout.roots())


def test_whatever_refers_to_a_dropped_image_goes_too(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    kept, dropped = add_image(layout, AMD64), add_image(layout, ARM64)
    attestations = [as_artifact(layout, add_attestation(layout, image), image) for image in (kept, dropped)]
    signature = add_artifact(layout, "application/vnd.test.signature", subject=attestations[1])
    by_subject = add_artifact(layout, "application/vnd.test.sbom", subject=dropped)
    beside = add_artifact(layout, "application/vnd.test.words", data=b"beside\n")
    _rooted(layout, kept, dropped, *attestations, signature, by_subject, beside)
    selected = select_platforms(layout, layout.roots(), [AMD64])
    (root,) = selected.roots()
    index = selected.read_document(root)
    assert isinstance(index, ImageIndex)
    assert index.manifests == (kept, attestations[0], beside)


@pytest.mark.parametrize("version", list(IndexVersion))
def test_soci_indexes_of_a_dropped_image_go_too(tmp_path: Path, version: IndexVersion) -> None:
    source = Layout.create(tmp_path / "source")
    _rooted(source, add_image(source, AMD64), add_image(source, ARM64))
    options = SociOptions(min_layer_size=0, version=version)
    result = convert(source, tmp_path / "result", options=options)
    selected = select_platforms(result.layout, result.layout.roots(), [ARM64])
    (root,) = selected.roots()
    lost = next(image.soci_index for image in result.images if image.platform == AMD64)
    assert lost is not None
    reached = [node.digest for node in selected.walk(root)] + [node.digest for node in selected.referrers(root)]
    assert lost.digest not in reached
    held = next(image.soci_index for image in result.images if image.platform == ARM64)
    assert held is not None
    assert held.digest in reached


def test_platforms_of_nested_indexes_are_dropped_and_empty_indexes_vanish(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    images = {platform: add_image(layout, platform) for platform in (AMD64, ARM64, ARM_V7)}
    both = layout.add_document(ImageIndex(manifests=(images[AMD64], images[ARM64])))
    inner = layout.add_document(ImageIndex(manifests=(both,)))
    tag_lock = layout.add_document(ImageIndex(manifests=(images[ARM64],)))
    of_inner = add_artifact(layout, "application/vnd.test.signature", subject=both)
    attestation = add_attestation(layout, images[ARM64])
    _rooted(layout, inner, tag_lock, images[ARM_V7], of_inner, attestation)
    _lose(layout, images[ARM64])
    selected = select_platforms(layout, layout.roots(), [AMD64, ARM_V7])
    (root,) = selected.roots()
    index = selected.read_document(root)
    assert isinstance(index, ImageIndex)
    (outer, other) = index.manifests
    assert other == images[ARM_V7]
    (reduced,) = selected.read_document(outer).children
    assert selected.read_document(reduced).children == (images[AMD64],)
    check_complete(selected, selected.roots())


def test_a_nested_index_that_was_not_saved_is_dropped(address: str, tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "layout")
    nested = layout.add_document(ImageIndex(manifests=(add_image(layout, ARM64),)))
    _rooted(layout, add_image(layout, AMD64), nested)
    layout.blob_path(nested.digest).unlink()
    assert main(["push", str(layout.path), f"{address}/app:v1"]) == ExitCode.DAMAGED_CONTENT
    assert main(["push", str(layout.path), f"{address}/app:v1", "--platform", "linux/amd64"]) == ExitCode.OK


def test_an_attestation_of_a_chosen_platform_that_was_not_saved_is_left_out(
    address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layout = Layout.create(tmp_path / "layout")
    image = add_image(layout, AMD64)
    attestation = add_attestation(layout, image)
    _rooted(layout, image, attestation)
    layout.blob_path(attestation.digest).unlink()
    assert main(["push", str(layout.path), f"{address}/app:v1"]) == ExitCode.DAMAGED_CONTENT
    assert main(["push", str(layout.path), f"{address}/app:v1", "--platform", "linux/amd64"]) == ExitCode.OK
    assert f"{attestation.digest} belongs to the image" in caplog.text


def test_a_list_of_docker_keeps_its_type(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    _rooted(layout, add_image(layout, AMD64), add_image(layout, ARM64), media_type=DOCKER_LIST)
    (root,) = select_platforms(layout, layout.roots(), [AMD64]).roots()
    assert root.media_type == DOCKER_LIST


def test_all_versions_of_an_operating_system_are_one_choice(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    versions = [Platform("windows", "amd64", os_version=f"10.0.{build}") for build in (17763, 20348)]
    images = [add_image(layout, AMD64, env=[f"V={version.os_version}"]) for version in versions]
    entries = [image.annotated(platform=version) for image, version in zip(images, versions, strict=True)]
    linux = add_image(layout, ARM64)
    _rooted(layout, *entries, linux)
    selected = select_platforms(layout, layout.roots(), [Platform("windows", "amd64")])
    assert len(_children(selected, selected.roots()[0])) == 2
    _lose(layout, entries[0])
    selected = select_platforms(layout, layout.roots(), [Platform("windows", "amd64")])
    assert len(_children(selected, selected.roots()[0])) == 1


def test_a_single_image_is_what_its_config_says(address: str, tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout")
    layout.set_roots([layout.root().annotated(platform=None)])
    assert main(["push", str(layout.path), f"{address}/app:v1", "--platform", "linux/amd64"]) == ExitCode.OK
    assert main(["push", str(layout.path), f"{address}/app:v1", "--platform", "linux/arm64"]) == ExitCode.INVALID_INPUT


def test_a_platform_chooses_one_of_the_images_that_index_json_lists_itself(address: str, tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "layout")
    images = [add_image(layout, AMD64), add_image(layout, ARM64)]
    layout.set_roots([image.annotated(platform=None) for image in images])
    target = f"{address}/app:v1"
    assert main(["push", str(layout.path), target]) == ExitCode.INVALID_INPUT
    assert main(["push", str(layout.path), target, "--platform", "linux/arm64"]) == ExitCode.OK
    with RegistryClient(address) as client:
        found = client.manifests.head("app", "v1")
    assert found is not None
    assert found.digest == images[1].digest
    both = ["--platform", "linux/arm64", "--platform", "linux/amd64"]
    assert main(["push", str(layout.path), target, *both]) == ExitCode.INVALID_INPUT


@pytest.mark.parametrize("version", list(IndexVersion))
@pytest.mark.parametrize("part", ["manifest", "layer"])
def test_a_conversion_of_chosen_platforms_leaves_out_what_was_not_saved(
    address: str, tmp_path: Path, version: IndexVersion, part: str
) -> None:
    layout = _partly_saved(tmp_path / "layout", part)
    options = ["--min-layer-size", "0", "--platform", "linux/amd64", "--index-version", version.value]
    assert main(["convert", str(layout.path), str(tmp_path / "one"), *options]) == ExitCode.OK
    one = Layout.open(tmp_path / "one")
    platforms = _children(one, one.root())
    assert "linux/arm64" not in platforms
    assert "linux/arm/v7" in platforms
    assert platforms.count("unknown/unknown") == 2
    assert main(["push", str(one.path), f"{address}/app:v1"]) == ExitCode.OK
    assert main(["convert", str(layout.path), str(tmp_path / "two"), *options, "--drop-others"]) == ExitCode.OK
    two = Layout.open(tmp_path / "two")
    assert {"linux/arm64", "linux/arm/v7"}.isdisjoint(_children(two, two.root()))
    assert _children(two, two.root()).count("unknown/unknown") == 1
    assert main(["push", str(two.path), f"{address}/app:v2"]) == ExitCode.OK


@pytest.mark.parametrize("part", ["manifest", "layer"])
def test_an_archive_that_lacks_a_platform_is_converted_without_it(address: str, tmp_path: Path, part: str) -> None:
    archive = oci_archive(tmp_path / "image.tar", _partly_saved(tmp_path / "layout", part))
    options = ["--platform", "linux/amd64", "--min-layer-size", "0"]
    assert main(["convert", str(archive), str(tmp_path / "result"), *options]) == ExitCode.OK
    assert main(["push", str(tmp_path / "result"), f"{address}/app:v1"]) == ExitCode.OK


def test_a_conversion_without_a_choice_warns_of_what_was_not_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = _partly_saved(tmp_path / "layout")
    assert main(["convert", str(layout.path), str(tmp_path / "one"), "--min-layer-size", "0"]) == ExitCode.OK
    assert "linux/arm64 is listed in layout" in caplog.text
    layout = _partly_saved(tmp_path / "layers", "layer")
    assert main(["convert", str(layout.path), str(tmp_path / "two")]) == ExitCode.DAMAGED_CONTENT
    assert "Use only these with --platform linux/amd64" in capsys.readouterr().err
    assert not (tmp_path / "two").exists()


def test_a_conversion_drops_nested_indexes_that_were_not_saved(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "layout")
    lost, nested_kept = add_image(layout, ARM64), add_image(layout, ARM_V7)
    nested = layout.add_document(ImageIndex(manifests=(lost, nested_kept)))
    _rooted(layout, add_image(layout, AMD64), nested)
    _lose(layout, lost)
    result = convert(layout, tmp_path / "result", options=EVERYTHING, platforms=[AMD64])
    check_complete(result.layout, result.layout.roots())
    assert nested_kept.digest in {node.digest for node in result.layout.walk(result.root)}


@pytest.mark.parametrize("chosen", [None, [AMD64]])
def test_an_index_in_an_index_that_lists_nothing_else_is_converted(
    tmp_path: Path, chosen: list[Platform] | None
) -> None:
    layout = Layout.create(tmp_path / "layout")
    inner = layout.add_document(ImageIndex(manifests=(add_image(layout, AMD64), add_image(layout, ARM64))))
    _rooted(layout, inner)
    plain = convert(layout, tmp_path / "one", options=EVERYTHING, platforms=chosen)
    layout.set_roots([inner])
    assert plain.root == convert(layout, tmp_path / "two", options=EVERYTHING, platforms=chosen).root


def test_images_that_index_json_lists_itself_may_be_missing(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "layout")
    images = [add_image(layout, AMD64), add_image(layout, ARM64)]
    layout.set_roots(images)
    _lose(layout, images[1])
    result = convert(layout, tmp_path / "result", options=EVERYTHING, platforms=[AMD64])
    check_complete(result.layout, result.layout.roots())
    assert [str(image.platform) for image in result.images] == ["linux/amd64"]


def test_other_platforms_can_only_be_dropped_where_some_are_chosen(tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout")
    assert main(["convert", str(layout.path), str(tmp_path / "one"), "--drop-others"]) == ExitCode.INVALID_INPUT


def test_indexes_that_list_each_other_many_times_are_read_once(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    images = (add_image(layout, AMD64), add_image(layout, ARM64))
    below = layout.add_document(ImageIndex(manifests=images))
    for number in range(4):
        copies = tuple(below.annotated(annotations={"copy": str(copy)}) for copy in range(MAX_LISTED // 2))
        below = layout.add_document(ImageIndex(manifests=copies, annotations={"level": str(number)}))
    layout.set_roots([below])
    selected = select_platforms(layout, layout.roots(), [AMD64])
    assert selected.roots() != layout.roots()


def test_more_manifests_than_anybody_follows_are_refused(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    image = add_image(layout, AMD64)
    many = tuple(
        image.annotated(digest=f"sha256:{number:064x}", media_type=OCI_MANIFEST) for number in range(MAX_LISTED + 1)
    )
    _rooted(layout, *many)
    with pytest.raises(InvalidInput, match="at most 1000"):
        check_complete(layout, layout.roots())
