"""The cache of zTOCs: shared by processes, bounded, and never trusted."""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import OCI_LAYER
from soci_pipeline.soci.ztoc.store import CacheFolder
from tests.support.tars import noise

LAYER = Digest.of(b"a layer")
WRITER = """
import sys
from pathlib import Path
from soci_pipeline.oci.digest import Digest
from soci_pipeline.soci.ztoc.store import CacheFolder

cache = CacheFolder(Path(sys.argv[1]), max_bytes=40_000)
for turn in range(300):
    number = turn % 30
    data = bytes([number]) * 2000
    key = (Digest.of(data), "type", 1000, "tool")
    assert cache.get(*key) in (None, data)
    cache.put(*key, data)
"""


def test_what_was_put_is_got_by_the_whole_key_alone(tmp_path: Path) -> None:
    cache = CacheFolder(tmp_path / "new" / "folder")
    cache.put(LAYER, OCI_LAYER, 1000, "tool", b"a zTOC")
    assert cache.get(LAYER, OCI_LAYER, 1000, "tool") == b"a zTOC"
    assert cache.get(LAYER, OCI_LAYER, 1001, "tool") is None
    assert cache.get(LAYER, OCI_LAYER, 1000, "tool/2") is None
    assert cache.get(LAYER, f"{OCI_LAYER}+gzip", 1000, "tool") is None
    assert cache.get(Digest.of(b"other"), OCI_LAYER, 1000, "tool") is None


@pytest.mark.parametrize("damage", [b"", b"short", bytes(500)])
def test_a_damaged_file_is_ignored_and_deleted(tmp_path: Path, damage: bytes) -> None:
    cache = CacheFolder(tmp_path)
    cache.put(LAYER, OCI_LAYER, 1000, "tool", b"a zTOC")
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage)
    assert cache.get(LAYER, OCI_LAYER, 1000, "tool") is None
    assert not file.exists()


def test_the_folder_stays_within_its_bound_and_keeps_what_was_put_last(tmp_path: Path) -> None:
    cache = CacheFolder(tmp_path, max_bytes=10_000)
    for number in range(20):
        data = noise(3000, seed=number)
        cache.put(LAYER, OCI_LAYER, 1000 + number, "tool", data)
        assert cache.get(LAYER, OCI_LAYER, 1000 + number, "tool") == data
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 10_000


def test_a_ztoc_larger_than_the_folder_is_not_kept(tmp_path: Path) -> None:
    cache = CacheFolder(tmp_path, max_bytes=100)
    cache.put(LAYER, OCI_LAYER, 1000, "tool", bytes(100))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"in the way")
    cache = CacheFolder(tmp_path / "file")
    cache.put(LAYER, OCI_LAYER, 1000, "tool", b"a zTOC")
    assert cache.get(LAYER, OCI_LAYER, 1000, "tool") is None


DYING = """
import os, signal, sys
from pathlib import Path
from soci_pipeline.oci.digest import Digest
from soci_pipeline.soci.ztoc.store import CacheFolder

# The last thing before the file gets its name.
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
CacheFolder(Path(sys.argv[1])).put(Digest.of(b"other"), "type", 1000, "tool", b"a zTOC")
"""


def test_what_a_killed_writer_left_goes_with_the_next_file_and_a_living_ones_stays(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", DYING, str(tmp_path)], check=False)
    assert killed.returncode == -9
    (left,) = tmp_path.iterdir()
    living = tmp_path / f"{left.name}x"
    with living.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        CacheFolder(tmp_path).put(LAYER, OCI_LAYER, 1000, "tool", b"a zTOC")
        assert living.exists()
    assert not left.exists()


def test_several_processes_may_use_a_folder_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
    files = list(tmp_path.iterdir())
    assert all(file.suffix == ".ztoc" for file in files)
    for file in files:
        stored = file.read_bytes()
        assert hashlib.sha256(stored[32:]).digest() == stored[:32]
