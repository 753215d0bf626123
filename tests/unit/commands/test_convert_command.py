"""The command `convert`: layouts and archives in, a layout out, and what it does to what is already there."""

import json
import tarfile
from pathlib import Path

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.media_types import OCI_LAYER
from tests.support.archives import oci_archive
from tests.support.images import image_layout, index_layout, only_manifest
from tests.support.several_images import several_images


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return index_layout(tmp_path / "source", attestations=True).path


def converted(source: Path, destination: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, object]:
    assert main(["convert", str(source), str(destination), "--json", *more]) == ExitCode.OK
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def test_the_answer_names_what_index_json_lists(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = converted(source, tmp_path / "result", capsys, "--min-layer-size", "0")
    assert Layout.open(tmp_path / "result").root().digest == answer["index"]
    platforms = answer["platforms"]
    assert isinstance(platforms, list)
    assert [platform["platform"] for platform in platforms] == ["linux/amd64", "linux/arm64"]
    assert set(platforms[0]) == {"platform", "manifest", "soci_index", "layers"}
    assert set(platforms[0]["layers"][0]) == {"digest", "size", "ztoc", "reason"}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_gives_what_its_folder_gives(
    source: Path, tmp_path: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "image.tar"
    with tarfile.open(archive, mode) as file:  # type: ignore[call-overload]
        file.add(source, arcname=".")
    first = converted(source, tmp_path / "one", capsys, "--min-layer-size", "0")
    second = converted(archive, tmp_path / "two", capsys, "--min-layer-size", "0")
    assert first == second


def test_a_destination_that_is_there_needs_force(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = index_layout(tmp_path / "result")
    old = layout.add_bytes(b"old", OCI_LAYER)
    assert main(["convert", str(source), str(layout.path)]) == ExitCode.INVALID_INPUT
    assert layout.has(old)
    converted(source, layout.path, capsys, "--force")
    assert not layout.has(old)


def test_force_replaces_nothing_but_a_layout_or_an_empty_folder(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "diary.txt").write_text("dear diary")
    for place in (home, home / "diary.txt"):
        for force in ([], ["--force"]):
            assert main(["convert", str(source), str(place), *force]) == ExitCode.INVALID_INPUT
            assert "the only thing that --force replaces" in capsys.readouterr().err
    assert (home / "diary.txt").read_text() == "dear diary"
    (tmp_path / "empty").mkdir()
    converted(source, tmp_path / "empty", capsys, "--force")


@pytest.mark.parametrize("place", ["{source}", "{source}/../{name}"], ids=["not changed", "by another way"])
def test_a_source_is_not_replaced_by_its_own_result(
    place: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Layout.open(source).root()
    destination = place.format(source=source, name=source.name)
    assert main(["convert", str(source), destination, "--force", "--min-layer-size", "0"]) == ExitCode.INVALID_INPUT
    assert "is also the source" in capsys.readouterr().err
    assert Layout.open(source).root() == before


def test_nothing_is_left_beside_the_destination(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    converted(source, tmp_path / "result", capsys)
    main(["convert", str(tmp_path / "none"), str(tmp_path / "other")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result", "source"]
    assert sorted(path.name for path in (tmp_path / "result").iterdir()) == ["blobs", "index.json", "oci-layout"]


def test_nothing_to_index_is_a_failure_only_where_an_index_is_required(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    answer = converted(source, tmp_path / "one", capsys)
    assert answer["index"] == Layout.open(source).root().digest
    assert not caplog.messages
    status = main(["convert", str(source), str(tmp_path / "two"), "--require-index"])
    assert status == ExitCode.NOT_INDEXABLE
    assert Layout.open(tmp_path / "two").root().digest == answer["index"]
    said = capsys.readouterr().out
    assert "not indexed: too-small" in said
    assert said.endswith("too-small: smaller than the minimum size; fetching it whole is faster\n")
    assert any("--require-index" in said for said in caplog.messages)


def test_flags_of_the_reference_are_understood(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = converted(
        source, tmp_path / "one", capsys,
        "--min-layer-size", "0", "--span-size", "16KiB", "--platform", "linux/arm64/v8", "--optimizations", "xattr",
        "--prefetch-file", "/nowhere,/etc/os-release", "--build-tool", "test", "--jobs", "1",
        "--cache", str(tmp_path / "cache"),
    )  # fmt: skip
    platforms = answer["platforms"]
    assert isinstance(platforms, list)
    assert len(platforms) == 1
    soci = Layout.open(tmp_path / "one").blob_path(Digest(platforms[0]["soci_index"])).read_bytes()
    assert b'"com.amazon.soci.disable-xattrs":"true"' in soci
    assert b"vnd.amazon.soci.prefetch" in soci
    assert b'"com.amazon.soci.build-tool-identifier":"test"' in soci
    assert list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--span-size", "0"], ExitCode.USAGE),
        (["--min-layer-size", "-1"], ExitCode.USAGE),
        (["--platform", "linux"], ExitCode.INVALID_INPUT),
        (["--platform", "linux/s390x"], ExitCode.INVALID_INPUT),
        (["--span-size", "4096GiB"], ExitCode.USAGE),
        (["--jobs", "0"], ExitCode.USAGE),
    ],
)
def test_wrong_arguments_change_nothing(source: Path, tmp_path: Path, arguments: list[str], status: ExitCode) -> None:
    assert main(["convert", str(source), str(tmp_path / "result"), *arguments]) == status
    assert not (tmp_path / "result").exists()


def test_only_files_that_no_indexed_layer_has_are_named_as_not_prefetched(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    converted(
        source, tmp_path / "one", capsys,
        "--min-layer-size", "0", "--prefetch-file", "/etc/os-release,/nowhere", "--prefetch-file", "nowhere",
    )  # fmt: skip
    said = [record.getMessage() for record in caplog.records if "prefetched" in record.getMessage()]
    assert [words.split(" ", 1)[0] for words in said] == ["/nowhere", "nowhere"]


def test_a_destination_that_cannot_be_made_is_named(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["convert", str(source), str(tmp_path / "file" / "result")]) == ExitCode.INVALID_INPUT
    assert f"{tmp_path / 'file'} cannot be written" in capsys.readouterr().err


def test_spans_may_be_as_small_as_the_reference_makes_them(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = converted(source, tmp_path / "one", capsys, "--span-size", "1", "--min-layer-size", "0")
    assert all(platform["soci_index"] for platform in answer["platforms"])  # type: ignore[attr-defined]


def test_what_is_no_layout_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.tar"
    with tarfile.open(empty, "w"):
        pass
    (tmp_path / "folder").mkdir()
    for path in (empty, tmp_path / "folder", tmp_path / "none"):
        assert main(["convert", str(path), str(tmp_path / "result")]) == ExitCode.INVALID_INPUT


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("127.0.0.1:5000/shop/web:1.4", "`soci-pipeline index 127.0.0.1:5000/shop/web:1.4`"),
        ("registry.example.com/web", "`soci-pipeline index registry.example.com/web`"),
        ("https://example.com/image.tar", "Download it first"),
        ("missing/image.tar", "Use a folder or a tar archive with an OCI layout."),
        ("../missing.tar", "Use a folder or a tar archive with an OCI layout."),
    ],
)
def test_a_source_that_is_not_there_comes_with_what_was_probably_meant(
    source: str, advice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", source, str(tmp_path / "out")]) == ExitCode.INVALID_INPUT
    said = capsys.readouterr().err
    assert "there is no " in said
    assert advice in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("destination", ["https://example.com/x", "oci://out"])
def test_an_address_is_no_destination(
    source: Path, destination: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert main(["convert", str(source), destination]) == ExitCode.INVALID_INPUT
    assert f"soci-pipeline: {destination} is a URL" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_v1_leaves_the_image_index_as_it_is(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = converted(source, tmp_path / "one", capsys, "--index-version", "v1", "--min-layer-size", "0")
    assert answer["index"] == Layout.open(source).root().digest
    platforms = answer["platforms"]
    assert isinstance(platforms, list)
    for platform in platforms:
        assert Layout.open(tmp_path / "one").blob_path(Digest(platform["soci_index"])).exists()


@pytest.mark.parametrize("least", ["0", "10MiB"], ids=["indexed", "too small to index"])
@pytest.mark.parametrize("outside", [True, False])
def test_a_blob_that_is_a_link_is_neither_read_nor_taken_over(
    outside: bool, least: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = image_layout(tmp_path / "source")
    blob = layout.blob_path(only_manifest(layout).layers[0].digest)
    moved = tmp_path / "outside" if outside else blob.with_name("0" * 64)
    blob.rename(moved)
    blob.symlink_to(moved)
    status = main(["convert", str(layout.path), str(tmp_path / "result"), "--min-layer-size", least])
    assert status == ExitCode.HOSTILE_ARCHIVE
    assert "is not a regular file but a symbolic link" in capsys.readouterr().err
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("least", ["0", "10MiB"], ids=["indexed", "too small to index"])
def test_a_blob_that_is_not_indexed_is_hashed_before_it_is_taken_over(
    layer: int, least: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = image_layout(tmp_path / "source")
    blob = only_manifest(layout).layers[layer]
    path = layout.blob_path(blob.digest)
    path.chmod(0o644)
    path.write_bytes(b"\0" * blob.size)
    status = main(["convert", str(layout.path), str(tmp_path / "result"), "--min-layer-size", least])
    assert status == ExitCode.DAMAGED_CONTENT
    assert str(blob.digest) in capsys.readouterr().err
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_two_images_of_one_platform_are_listed_and_one_is_chosen_by_name(
    packed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = several_images(tmp_path / "layout", ["web-1", "cache-7"])
    source = oci_archive(tmp_path / "image.tar", layout) if packed else layout.path
    assert main(["convert", str(source), str(tmp_path / "result")]) == ExitCode.INVALID_INPUT
    said = capsys.readouterr().err
    assert "2 different images for linux/amd64" in said
    assert all(
        f"{name}  {root.digest}" in said for name, root in zip(["web-1", "cache-7"], layout.roots(), strict=True)
    )
    assert "--ref NAME" in said
    assert not (tmp_path / "result").exists()
    answer = converted(source, tmp_path / "result", capsys, "--ref", "cache-7")
    platforms = answer["platforms"]
    assert isinstance(platforms, list)
    assert [platform["manifest"] for platform in platforms] == [layout.roots()[1].digest]
    assert not Layout.open(tmp_path / "result").has(layout.roots()[0])
    assert main(["convert", str(source), str(tmp_path / "other"), "--ref", "none"]) == ExitCode.INVALID_INPUT
    assert "has no image 'none'" in capsys.readouterr().err
