"""Lists of files to prefetch: the JSON of the reference, and what is rejected."""

import io
import json
import os
import sys
import threading
from pathlib import Path

import pytest

from soci_pipeline.cli import main
from soci_pipeline.commands.prefetch_files import MAX_FILE_BYTES, MAX_FILES
from soci_pipeline.errors import ExitCode
from tests.support.images import index_layout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return index_layout(tmp_path / "source").path


def _index(source: Path, result: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert main(["convert", str(source), str(result), "--min-layer-size", "0", "--json", *more]) == ExitCode.OK
    answer: dict[str, str] = json.loads(capsys.readouterr().out)
    return answer["index"]


def test_a_json_list_gives_what_the_same_files_give_one_by_one(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "files.json"
    listed.write_text(json.dumps([" /etc/os-release\n", "", "usr/bin/app", "  "]))
    one_by_one = _index(
        source, tmp_path / "one", capsys,
        "--prefetch-file", "/etc/os-release", "--prefetch-file", " usr/bin/app ,",
    )  # fmt: skip
    assert _index(source, tmp_path / "two", capsys, "--prefetch-files-json", str(listed)) == one_by_one
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed.read_bytes())))
    assert _index(source, tmp_path / "three", capsys, "--prefetch-files-json", "-") == one_by_one
    both = _index(
        source, tmp_path / "four", capsys, "--prefetch-file", "/etc/os-release", "--prefetch-files-json", str(listed)
    )
    assert both == one_by_one
    assert _index(source, tmp_path / "five", capsys) != one_by_one


def test_a_name_with_a_comma_and_more_names_than_a_command_line_takes_are_read(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"/opt/{'x' * 120}/{number}" for number in range(2_000)]
    listed = tmp_path / "files.json"
    listed.write_text(json.dumps(["/a,b", "/größe", *names, "/etc/os-release"], ensure_ascii=False), encoding="utf-8")
    found = _index(source, tmp_path / "one", capsys, "--prefetch-files-json", str(listed))
    assert found == _index(source, tmp_path / "two", capsys, "--prefetch-file", "/etc/os-release")
    said = [record.getMessage() for record in caplog.records if "prefetched" in record.getMessage()]
    assert [words.split(" ", 1)[0] for words in said] == ["/a,b", "/größe", *names]


def test_a_list_may_come_through_a_pipe(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=('["/etc/os-release"]',))
    writer.start()
    found = _index(source, tmp_path / "one", capsys, "--prefetch-files-json", str(pipe))
    writer.join()
    assert found == _index(source, tmp_path / "two", capsys, "--prefetch-file", "/etc/os-release")


def test_an_empty_list_prefetches_nothing(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "files.json").write_text("[]")
    found = _index(source, tmp_path / "one", capsys, "--prefetch-files-json", str(tmp_path / "files.json"))
    assert found == _index(source, tmp_path / "two", capsys)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not valid JSON"),
        (b'["/a"', "is not valid JSON"),
        (b'["/a"] ["/b"]', "is not valid JSON"),
        (b"/a\n/b\n", "is not valid JSON"),
        (b'\xef\xbb\xbf["/a"]', "is not valid JSON"),
        (b'["/\xff"]', "is not UTF-8"),
        (b"null", "must hold a JSON array, not null"),
        (b'"/a"', "must hold a JSON array, not a string"),
        (b'{"files": ["/a"]}', "must hold a JSON array, not an object"),
        (b'["/a", 7]', "element 2 must be a string, not a number"),
        (b'["/a", null]', "element 2 must be a string, not null"),
        (b'[["/a"]]', "element 1 must be a string, not an array"),
        (b"[true]", "element 1 must be a string, not a boolean"),
        (b'["\\ud800"]', "element 1 is not valid Unicode"),
        (b'["/a\\u0000b"]', "element 1 contains a NUL"),
        (json.dumps(["/" + "x" * 4096]).encode(), "element 1 is 4,097 bytes long"),
        (b"[" * 200_000, "is nested too deeply"),
        (b"[" + b"9" * 10_000 + b"]", "is not valid JSON"),
        (json.dumps(["/a"] * (MAX_FILES + 1)).encode(), "names 100,001 files"),
        (b'["' + b"x" * MAX_FILE_BYTES + b'"]', "is larger than 16 MiB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_such_a_list_is_rejected_before_anything_is_written(
    source: Path, tmp_path: Path, content: bytes, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "files.json"
    listed.write_bytes(content)
    status = main(["convert", str(source), str(tmp_path / "result"), "--prefetch-files-json", str(listed)])
    said = capsys.readouterr().err
    assert status == ExitCode.INVALID_INPUT
    assert f"--prefetch-files-json {listed}" in said
    assert reason in said
    assert len(said) < 1000
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize(("name", "reason"), [("missing.json", "No such file"), ("", "Is a directory")])
def test_a_list_that_cannot_be_read_is_named(
    source: Path, tmp_path: Path, name: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / name
    status = main(["convert", str(source), str(tmp_path / "result"), "--prefetch-files-json", str(listed)])
    assert status == ExitCode.INVALID_INPUT
    assert f"--prefetch-files-json {listed} cannot be read: {reason}" in capsys.readouterr().err


def test_a_file_without_an_end_is_read_up_to_the_limit(source: Path, tmp_path: Path) -> None:
    status = main(["convert", str(source), str(tmp_path / "result"), "--prefetch-files-json", "/dev/zero"])
    assert status == ExitCode.INVALID_INPUT
