import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.oci.media_types import OCI_INDEX
from soci_pipeline.registry.server.storage import TAG, Storage
from tests.support.registries import push_image, registry

WRITER = """
import sys
from pathlib import Path
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.registry.server.storage import Storage

repository = Storage(Path(sys.argv[1])).create("shared")
for number in range(40):
    document = ImageIndex(annotations={"by": f"{sys.argv[2]} {number}"})
    repository.put_manifest(document.encode(), document.media_type, tags=[f"{sys.argv[2]}-{number}"])
"""


def index(name: str) -> bytes:
    return ImageIndex(annotations={"name": name}).encode()


def test_two_processes_that_write_one_folder_lose_no_tag(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in ("a", "b")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    repository = Storage(tmp_path).repository("shared")
    assert repository is not None
    assert len(repository.tags()) == 80


def test_what_another_process_wrote_is_seen_at_once(tmp_path: Path) -> None:
    mine, theirs = Storage(tmp_path).create("shared"), Storage(tmp_path).create("shared")
    first = theirs.put_manifest(index("1"), OCI_INDEX, tags=["v1"])
    assert mine.manifest("v1") == first
    second = theirs.put_manifest(index("2"), OCI_INDEX, tags=["v1"])
    assert (mine.manifest("v1"), mine.manifest(first.digest)) == (second, first)


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
