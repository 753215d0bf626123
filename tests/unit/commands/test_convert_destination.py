"""What `convert --force` replaces, and what is there after it was interrupted at any moment."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.cli import main
from soci_pipeline.commands.convert_destination import scratch_beside
from soci_pipeline.errors import ExitCode
from soci_pipeline.machine.working_folder import LOCK
from soci_pipeline.oci import layout_replacement
from soci_pipeline.oci.layout import Layout
from soci_pipeline.soci.index.convert import convert
from tests.support.images import AMD64, gzip_layer, image_layout, index_layout
from tests.support.registries import noise

SCRATCH = "soci-pipeline-convert-*"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return index_layout(tmp_path / "source").path


@pytest.fixture
def destination(tmp_path: Path) -> Layout:
    """An earlier result."""
    return image_layout(tmp_path / "out" / "result")


def _convert(source: Path, destination: Path, *more: str) -> int:
    return main(["convert", str(source), str(destination), "--min-layer-size", "0", *more])


def _is_whole(layout: Layout) -> bool:
    return all(layout.read(node, limit=1 << 30) for node in layout.walk(layout.root()))


@pytest.fixture(params=["in one step", "in two steps"])
def replacing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that exchanges names, and on one that cannot."""
    if request.param == "in two steps":
        monkeypatch.setattr(layout_replacement, "exchange", lambda one, other: False)


@pytest.mark.usefixtures("replacing")
def test_the_earlier_result_is_replaced_and_nothing_is_left_beside_it(source: Path, destination: Layout) -> None:
    assert _convert(source, destination.path, "--force") == ExitCode.OK
    assert len(Layout.open(destination.path).read_document(destination.root()).children) == 4
    assert [path.name for path in destination.path.parent.iterdir()] == ["result"]


def _notes(folder: Path) -> Path:
    path = folder / "notes.txt"
    path.write_text("mine")
    return path


def _among_blobs(folder: Path) -> Path:
    path = folder / "blobs" / "sha256" / "notes.txt"
    path.write_text("mine")
    return path


def _beside_algorithms(folder: Path) -> Path:
    path = folder / "blobs" / "notes.txt"
    path.write_text("mine")
    return path


def _repository(folder: Path) -> Path:
    path = folder / ".git" / "config"
    path.parent.mkdir()
    path.write_text("mine")
    return path


def _in_an_empty_layout(folder: Path) -> Path:
    path = folder / "index.json" / "notes.txt"
    (folder / "index.json").unlink()
    path.parent.mkdir()
    path.write_text("mine")
    return path


@pytest.mark.parametrize("add", [_notes, _among_blobs, _beside_algorithms, _repository, _in_an_empty_layout])
def test_a_file_that_is_not_part_of_the_layout_is_not_deleted(
    add: Callable[[Path], Path], source: Path, destination: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = add(destination.path)
    assert _convert(source, destination.path, "--force") == ExitCode.INVALID_INPUT
    assert "not part of an OCI layout" in capsys.readouterr().err
    assert foreign.read_text() == "mine"


def test_what_a_builder_leaves_in_a_layout_does_not_keep_it_from_being_replaced(
    source: Path, destination: Layout
) -> None:
    (destination.path / "ingest").mkdir()
    assert _convert(source, destination.path, "--force") == ExitCode.OK


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_source_inside_the_destination_is_not_deleted(
    force: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outer = image_layout(tmp_path / "outer")
    inner = image_layout(outer.path / "blobs" / "inner")
    (tmp_path / "link").symlink_to(outer.path)
    for destination in (outer.path, tmp_path / "link", outer.path / "blobs"):
        assert _convert(inner.path, destination, *force) == ExitCode.INVALID_INPUT
        assert "lies inside the destination" in capsys.readouterr().err
    archive = outer.path / "image.tar"
    archive.write_bytes(b"")
    assert _convert(archive, outer.path, *force) == ExitCode.INVALID_INPUT
    assert "lies inside the destination" in capsys.readouterr().err
    assert archive.exists()
    assert _is_whole(outer)
    assert _is_whole(inner)


def test_a_destination_inside_the_source_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to(source / "blobs")
    for destination in (source / "result", source / "blobs" / "sha256", tmp_path / "link" / "result"):
        assert _convert(source, destination, "--force") == ExitCode.INVALID_INPUT
        assert "lies inside the source" in capsys.readouterr().err
    assert _is_whole(Layout.open(source))


def test_a_cache_inside_the_destination_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "result" / "cache"
    assert _convert(source, tmp_path / "result", "--cache", str(cache)) == ExitCode.INVALID_INPUT
    assert "--cache" in capsys.readouterr().err
    assert not (tmp_path / "result").exists()


def test_the_folder_that_a_link_leads_to_is_replaced(source: Path, destination: Layout, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(destination.path)
    before = destination.root()
    assert _convert(source, tmp_path / "link", "--force") == ExitCode.OK
    assert (tmp_path / "link").is_symlink()
    assert destination.root() != before


_SLOW = """
import os, sys, time
from soci_pipeline.cli import main
from soci_pipeline.commands import convert
def hold(*arguments, **options):
    print("indexing", flush=True)
    while True:
        time.sleep(0.05)
convert.convert = hold
sys.exit(main(["convert", *sys.argv[1:]]))
"""

_KILLED_BETWEEN = """
import os, signal, sys
from pathlib import Path
from soci_pipeline.cli import main
from soci_pipeline.oci import layout_replacement
layout_replacement.exchange = lambda one, other: False
rename, moved = Path.rename, []
def killed(path, target):
    if path.name == "result" and moved:
        os.kill(os.getpid(), signal.SIGKILL)
    done = rename(path, target)
    if path.name == "result":
        moved.append(path)
    return done
Path.rename = killed
sys.exit(main(["convert", *sys.argv[1:]]))
"""


@contextmanager
def _holding(source: Path, destination: Path) -> Iterator[subprocess.Popen[str]]:
    """A conversion that has made its scratch folder and goes no further."""
    command = [sys.executable, "-c", _SLOW, str(source), str(destination), "--force"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "indexing\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_conversion_that_is_asked_to_end_leaves_what_was_there(
    number: signal.Signals, source: Path, destination: Layout
) -> None:
    before = destination.root()
    with _holding(source, destination.path) as process:
        assert list(destination.path.parent.glob(SCRATCH))
        process.send_signal(number)
        assert process.wait(30) == 128 + signal.SIGINT
    assert [path.name for path in destination.path.parent.iterdir()] == ["result"]
    assert Layout.open(destination.path).root() == before


def test_the_scratch_folder_of_a_killed_conversion_goes_with_the_next(source: Path, destination: Layout) -> None:
    before = destination.root()
    with _holding(source, destination.path) as process:
        process.kill()
        process.wait(30)
    left = list(destination.path.parent.glob(SCRATCH))
    assert len(left) == 1
    assert Layout.open(destination.path).root() == before
    assert _convert(source, destination.path.parent / "another") == ExitCode.OK
    assert sorted(path.name for path in destination.path.parent.iterdir()) == ["another", "result"]


def test_the_scratch_folder_of_a_living_conversion_and_foreign_folders_stay(
    source: Path, destination: Layout, tmp_path: Path
) -> None:
    parent = destination.path.parent
    foreign = parent / "soci-pipeline-convert-notes"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    (foreign / ".alive").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".alive").touch()
    (parent / "soci-pipeline-convert-link").symlink_to(tmp_path / "elsewhere")
    hour_ago = time.time() - 3600
    os.utime(foreign, (hour_ago, hour_ago))
    with scratch_beside(parent / "other") as living:
        assert _convert(source, destination.path, "--force") == ExitCode.OK
        assert living.is_dir()
    assert (foreign / "notes.txt").read_text() == "mine"
    assert (tmp_path / "elsewhere" / ".alive").exists()


@pytest.mark.parametrize("force", [True, False])
def test_a_kill_between_two_renames_loses_neither_result(force: bool, source: Path, destination: Layout) -> None:
    before = destination.root()
    command = [sys.executable, "-c", _KILLED_BETWEEN, str(source), str(destination.path), "--force"]
    assert subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == -signal.SIGKILL
    [scratch] = destination.path.parent.glob(SCRATCH)
    assert not destination.path.exists()
    assert _is_whole(Layout.open(scratch / "replaced" / "result"))
    assert _is_whole(Layout.open(scratch / "result"))
    # The next run returns what was there, and replaces it only if it may.
    status = _convert(source, destination.path, *(["--force"] if force else []))
    assert status == (ExitCode.OK if force else ExitCode.INVALID_INPUT)
    assert (Layout.open(destination.path).root() != before) == force
    assert _is_whole(Layout.open(destination.path))
    assert [path.name for path in destination.path.parent.iterdir()] == ["result"]


def test_an_earlier_result_whose_name_is_in_use_again_is_kept(
    source: Path, destination: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    command = [sys.executable, "-c", _KILLED_BETWEEN, str(source), str(destination.path), "--force"]
    subprocess.run(command, check=False, capture_output=True, timeout=60)
    destination.path.mkdir()
    assert _convert(source, destination.path.parent / "another") == ExitCode.OK
    [scratch] = destination.path.parent.glob(SCRATCH)
    assert _is_whole(Layout.open(scratch / "replaced" / "result"))
    assert f"{scratch}/replaced/result was kept because its name is in use again" in caplog.text


def test_an_earlier_result_is_kept_where_another_program_takes_its_name_between_two_renames(
    source: Path, destination: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def take_the_name(one: Path, other: Path) -> bool:
        monkeypatch.setattr(Path, "rename", taking)
        return False

    def taking(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        if path == destination.path:
            path.mkdir()
            (path / "notes.txt").write_text("mine")
        return moved

    rename = Path.rename
    monkeypatch.setattr(layout_replacement, "exchange", take_the_name)
    assert _convert(source, destination.path, "--force") == ExitCode.INVALID_INPUT
    [scratch] = destination.path.parent.glob(SCRATCH)
    assert _is_whole(Layout.open(scratch / "replaced" / "result"))
    assert (destination.path / "notes.txt").read_text() == "mine"
    assert f"{scratch}/replaced/result" in capsys.readouterr().err


def test_kills_at_any_moment_leave_a_whole_result(destination: Layout, tmp_path: Path) -> None:
    source = image_layout(tmp_path / "source", AMD64, [gzip_layer({"model.bin": noise(3 << 20)}, level=1)]).path
    command = [sys.executable, "-m", "soci_pipeline", "convert", str(source), str(destination.path), "--force"]
    for attempt in range(6):
        with subprocess.Popen([*command, "--quiet"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 30
            while not list(destination.path.parent.glob(SCRATCH)) and process.poll() is None:
                assert time.monotonic() < deadline
            time.sleep(attempt * 0.02)
            process.kill()
        assert _is_whole(Layout.open(destination.path))
    # A folder without a lock may be about to get it: it counts as abandoned after a minute.
    for scratch in destination.path.parent.glob(SCRATCH):
        if not (scratch / LOCK).exists():
            os.utime(scratch, (time.time() - 120,) * 2)
    assert _convert(source, destination.path, "--force") == ExitCode.OK
    assert [path.name for path in destination.path.parent.iterdir()] == ["result"]


def test_what_appears_at_the_destination_in_the_meantime_is_not_replaced(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    destination = tmp_path / "result"

    def meanwhile(*arguments: Any, **options: Any) -> object:
        done = convert(*arguments, **options)
        (image_layout(destination).path / "notes.txt").write_text("mine")
        return done

    monkeypatch.setattr("soci_pipeline.commands.convert.convert", meanwhile)
    for force in ([], ["--force"]):
        assert _convert(source, destination, *force) == ExitCode.INVALID_INPUT
        assert (destination / "notes.txt").read_text() == "mine"
        (destination / "notes.txt").unlink()
    capsys.readouterr()


def test_a_scratch_folder_is_locked_while_it_is_used(tmp_path: Path) -> None:
    with (
        scratch_beside(tmp_path / "result") as scratch,
        (scratch / ".alive").open() as lock,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not scratch.exists()
