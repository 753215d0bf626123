"""The commands `ztoc`, `ztoc-info` and `ztoc-get-file`: answers, files and exit statuses."""

import gzip
import json
import resource
from pathlib import Path

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from tests.support.tars import Entry, gzipped, symlink, tar, text

CONTENT = text(90_000)


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    path = tmp_path / "layer.tar.gz"
    path.write_bytes(gzipped(tar([Entry("usr/text", CONTENT), symlink("link", "usr/text")])))
    return path


def made(layer: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, object]:
    output = layer.with_suffix(".ztoc")
    status = main(["ztoc", str(layer), "--media-type", OCI_LAYER_GZIP, "--output", str(output), "--json", *more])
    assert status == ExitCode.OK
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def test_ztoc_writes_a_file_and_says_what_is_in_it(layer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = made(layer, capsys, "--span-size", "20000")
    data = layer.with_suffix(".ztoc").read_bytes()
    assert (answer["digest"], answer["size"], answer["entries"]) == (Digest.of(data), len(data), 2)


def test_the_build_tool_is_part_of_the_digest(layer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert made(layer, capsys)["digest"] != made(layer, capsys, "--build-tool", "another")["digest"]


@pytest.mark.parametrize(
    ("cut", "media_type", "status"),
    [(0, OCI_LAYER_ZSTD, ExitCode.NOT_INDEXABLE), (9, OCI_LAYER_GZIP, ExitCode.DAMAGED_CONTENT)],
)
def test_ztoc_writes_nothing_where_there_is_none(
    layer: Path, cut: int, media_type: str, status: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    layer.write_bytes(layer.read_bytes()[: -cut or None])
    output = layer.with_suffix(".ztoc")
    assert main(["ztoc", str(layer), "--media-type", media_type, "--output", str(output), "--json"]) == status
    assert not output.exists()
    assert json.loads(capsys.readouterr().out)["exit_code"] == status


def test_a_limit_refuses_a_bomb(layer: Path) -> None:
    output = layer.with_suffix(".ztoc")
    arguments = ["ztoc", str(layer), "--media-type", OCI_LAYER_GZIP, "--output", str(output)]
    assert main([*arguments, "--max-uncompressed-size", "50000"]) == ExitCode.HOSTILE_ARCHIVE
    assert main([*arguments, "--max-ztoc-size", "20000"]) == ExitCode.HOSTILE_ARCHIVE


def test_a_layer_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["ztoc", str(tmp_path / "none"), "--media-type", OCI_LAYER_GZIP, "--output", str(tmp_path / "out")]
    assert main(arguments) == ExitCode.INVALID_INPUT
    assert "none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("media_type", "said"),
    [
        ("application/vnd.oci.image.layer.v1.tar", "is gzipped, but application/vnd.oci.image.layer.v1.tar is a plain"),
        ("application/vnd.docker.image.rootfs.diff.tar", "Give application/vnd.docker.image.rootfs.diff.tar.gzip."),
        ("gzip", "'gzip' is not a layer media type"),
    ],
)
def test_a_sound_layer_is_not_called_damaged_for_a_wrong_media_type(
    layer: Path, tmp_path: Path, media_type: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "x.ztoc"
    command = ["ztoc", str(layer), "--media-type", media_type, "--output", str(output)]
    assert main(command) == ExitCode.INVALID_INPUT
    assert said in capsys.readouterr().err
    assert not output.exists()


def test_a_plain_tar_is_not_called_damaged_where_a_gzipped_one_was_promised(
    layer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "layer.tar"
    plain.write_bytes(gzip.decompress(layer.read_bytes()))
    command = ["ztoc", str(plain), "--media-type", "application/vnd.oci.image.layer.v1.tar+gzip", "--output", "x"]
    assert main(command) == ExitCode.INVALID_INPUT
    assert "is not gzipped" in capsys.readouterr().err


def test_ztoc_info_shows_spans_and_entries(layer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = made(layer, capsys, "--span-size", "20000")
    assert main(["ztoc-info", str(layer.with_suffix(".ztoc")), "--json"]) == ExitCode.OK
    shown = json.loads(capsys.readouterr().out)
    assert shown["compression"] == "gzip"
    assert len(shown["spans"]) == answer["spans"]
    assert [entry["name"] for entry in shown["entries"]] == ["usr/text", "link"]
    assert main(["ztoc-info", str(layer.with_suffix(".ztoc"))]) == ExitCode.OK
    assert "link -> usr/text" in capsys.readouterr().out


def test_ztoc_info_refuses_what_is_no_ztoc_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = tmp_path / "notes.ztoc"
    notes.write_bytes(CONTENT)
    assert main(["ztoc-info", str(notes)]) == ExitCode.DAMAGED_CONTENT
    assert f"{notes}: not a valid zTOC" in capsys.readouterr().err


def test_ztoc_info_of_a_layer_says_what_it_was_given(layer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ztoc-info", str(layer)]) == ExitCode.INVALID_INPUT
    assert "is gzipped, so it is not a zTOC\n  next: `soci-pipeline ztoc` creates one" in capsys.readouterr().err


def test_ztoc_info_of_a_folder_says_which_file_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ztoc-info", str(tmp_path)]) == ExitCode.INVALID_INPUT
    assert f"{tmp_path} is a folder\n  next: Use one zTOC file" in capsys.readouterr().err


def test_ztoc_get_file_reads_one_file(layer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(layer, capsys, "--span-size", "20000")
    output = tmp_path / "content"
    ztoc = str(layer.with_suffix(".ztoc"))
    assert main(["ztoc-get-file", ztoc, str(layer), "/usr/text", "--output", str(output), "--json"]) == ExitCode.OK
    assert output.read_bytes() == CONTENT
    assert json.loads(capsys.readouterr().out)["digest"] == Digest.of(CONTENT)


def test_ztoc_get_file_refuses_another_layer(layer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(layer, capsys)
    other = tmp_path / "other"
    other.write_bytes(layer.read_bytes()[::-1])
    ztoc = str(layer.with_suffix(".ztoc"))
    arguments = ["ztoc-get-file", ztoc, str(other), "usr/text", "--output", str(tmp_path / "content")]
    assert main(arguments) == ExitCode.DAMAGED_CONTENT
    assert not (tmp_path / "content").exists()


def test_ztoc_get_file_refuses_a_layer_of_another_size(layer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(layer, capsys)
    ztoc = layer.with_suffix(".ztoc")
    assert main(["ztoc-get-file", str(ztoc), str(ztoc), "usr/text"]) == ExitCode.INVALID_INPUT
    assert f"belongs to a layer of {layer.stat().st_size}" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["missing/file", "."])
def test_an_output_that_cannot_be_written_is_named(
    layer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    made(layer, capsys)
    output = ["--output", str(tmp_path / place)]
    ztoc = str(layer.with_suffix(".ztoc"))
    assert main(["ztoc-get-file", ztoc, str(layer), "usr/text", *output]) == ExitCode.INVALID_INPUT
    assert main(["ztoc", str(layer), "--media-type", OCI_LAYER_GZIP, *output]) == ExitCode.INVALID_INPUT
    assert capsys.readouterr().err.count(f"{tmp_path / place} cannot be written") == 2


def test_an_output_of_which_the_disk_takes_only_a_part_is_removed(
    layer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(layer, capsys)
    output, limit = tmp_path / "content", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(CONTENT) // 2, limit[1]))
    try:
        ztoc = str(layer.with_suffix(".ztoc"))
        status = main(["ztoc-get-file", ztoc, str(layer), "usr/text", "--output", str(output)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert status == ExitCode.DISK_FULL
    assert f"{output} cannot be written: File too large" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("span_size", ["0", "-1", str(1 << 63)])
def test_a_span_size_that_cannot_be_meant_is_refused(layer: Path, span_size: str) -> None:
    arguments = ["--media-type", OCI_LAYER_GZIP, "--output", str(layer.with_suffix(".ztoc")), "--span-size", span_size]
    assert main(["ztoc", str(layer), *arguments]) == ExitCode.USAGE


def test_ztoc_get_file_names_a_path_that_is_no_file(layer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(layer, capsys)
    for path in ("link", "none"):
        arguments = ["ztoc-get-file", str(layer.with_suffix(".ztoc")), str(layer), path, "--output", "out"]
        assert main(arguments) == ExitCode.INVALID_INPUT


def test_an_output_never_replaces_an_input(layer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(layer, capsys)
    ztoc = layer.with_suffix(".ztoc")
    (layer.parent / "link").symlink_to(layer)
    before = layer.read_bytes(), ztoc.read_bytes()
    for output in (layer, layer.parent / "link"):
        arguments = ["ztoc", str(layer), "--media-type", OCI_LAYER_GZIP, "--output", str(output)]
        assert main(arguments) == ExitCode.INVALID_INPUT
    for output in (layer, ztoc):
        arguments = ["ztoc-get-file", str(ztoc), str(layer), "usr/text", "--output", str(output)]
        assert main(arguments) == ExitCode.INVALID_INPUT
    assert (layer.read_bytes(), ztoc.read_bytes()) == before
