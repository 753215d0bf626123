import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from soci_pipeline.errors import InvalidInput, StackError
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.oci.media_types import OCI_INDEX
from soci_pipeline.registry.server import serving
from soci_pipeline.registry.server.catalogue import TAG
from soci_pipeline.registry.server.storage import Storage
from tests.support.registries import push_image, registry

HOLDER = """
import sys
from pathlib import Path
from soci_pipeline.registry.server.storage import Storage

storage = Storage(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def serve_from_another_process(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        try:
            yield other
        finally:
            other.kill()


def index(name: str) -> bytes:
    return ImageIndex(annotations={"name": name}).encode()


def test_a_folder_that_another_process_serves_is_rejected_until_that_process_ends(tmp_path: Path) -> None:
    with serve_from_another_process(tmp_path) as other:
        with pytest.raises(StackError, match=f"{tmp_path} is already served by another registry"):
            Storage(tmp_path)
        # The lock must not outlive a process that is killed.
        other.kill()
        other.wait(20)
        Storage(tmp_path).close()


def test_a_folder_that_this_process_serves_is_rejected_by_any_of_its_names(tmp_path: Path) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    with Storage(folder):
        link.symlink_to(folder)
        for name in (folder, link, tmp_path / "folder" / ".." / "folder"):
            with pytest.raises(StackError, match="already served"):
                Storage(name)
    Storage(link).close()


def test_two_servers_in_one_process_cannot_serve_one_folder(tmp_path: Path) -> None:
    with serving(tmp_path), pytest.raises(StackError, match="already served"), serving(tmp_path):
        pass
    with serving(tmp_path) as address:
        assert address


def test_what_another_program_wrote_to_a_layout_is_seen_at_once(tmp_path: Path) -> None:
    repository = Storage(tmp_path).create("shared")
    first = repository.put_manifest(index("1"), OCI_INDEX, tags=["v1"])
    second = repository.layout.add_bytes(index("2"), OCI_INDEX)
    repository.layout.set_roots([first.plain, second.annotated(annotations={TAG: "v1"})])
    assert (repository.manifest("v1"), repository.manifest(first.digest)) == (second, first)


def test_a_repository_is_an_oci_layout_that_other_tools_can_read(tmp_path: Path) -> None:
    with registry(tmp_path) as client:
        descriptor, _ = push_image(client, "v1", to="team/app")
    layout = Layout.open(Storage(tmp_path).layout_path("team/app"))
    assert [(entry.digest, entry.annotations) for entry in layout.roots()] == [(descriptor.digest, {TAG: "v1"})]
    assert len(list(layout.walk(layout.root().plain))) == 3


def test_several_tags_of_one_manifest_are_kept_apart(tmp_path: Path) -> None:
    repository = Storage(tmp_path).create("a")
    for tag in ("one", "two", "one"):
        repository.put_manifest(index("x"), OCI_INDEX, tags=[tag])
    assert repository.tags() == ("one", "two")
    assert len(repository.layout.roots()) == 2


def test_what_a_killed_server_left_is_removed_after_a_day(tmp_path: Path) -> None:
    Storage(tmp_path).create("a")
    folder = tmp_path / "a" / ".uploads"
    folder.mkdir()
    old, young = folder / "old", folder / "young"
    for path in (old, young):
        path.touch()
    os.utime(old, (time.time() - 90_000,) * 2)
    Storage(tmp_path)
    assert list(folder.iterdir()) == [young]


def test_a_name_that_would_leave_the_folder_is_refused(tmp_path: Path) -> None:
    for name in ("..", "../x", "/etc", "a/../b", "A"):
        with pytest.raises(InvalidInput):
            Storage(tmp_path).create(name)
