"""Many manifests in one repository, and what is on the disk when a change, or the process, is interrupted."""

import errno
import os
import random
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from soci_pipeline import full_disk
from soci_pipeline.errors import DamagedContent, DiskFull
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import MAX_MANIFEST_BYTES, ImageIndex, parse
from soci_pipeline.oci.media_types import OCI_INDEX
from soci_pipeline.registry.server import ServerSettings, catalogue
from soci_pipeline.registry.server.catalogue import SMALL, TAG, Catalogue
from tests.support.wire import API, LAYER, code_of, put_blob, put_document, put_image, start, wire

MANY = 3 * SMALL


def entry(number: int) -> Descriptor:
    return ImageIndex(annotations={"n": str(number)}).descriptor


def filled(folder: Path, count: int, *, tagged: bool = True) -> Layout:
    """A repository as a server before this one left it: everything in index.json."""
    layout = Layout.create(folder)
    roots = (entry(number) for number in range(count))
    layout.set_roots(root.annotated(annotations={TAG: f"t{at}"}) if tagged else root for at, root in enumerate(roots))
    return layout


@pytest.fixture
def nothing_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which several catalogues read one folder, as processes would that follow each other."""
    monkeypatch.setattr(Catalogue, "_flush_later", lambda _: None)


def state(found: Catalogue) -> tuple[dict[str, Descriptor | None], set[Digest]]:
    return {tag: found.manifest(tag) for tag in found.tags()}, {each.digest for each in found.manifests()}


def read_again(folder: Path) -> tuple[dict[str, Descriptor | None], set[Digest]]:
    """What another process finds in the folder as it is now, as after a `kill -9`."""
    with copied(folder) as copy:
        return state(Catalogue(copy))


@contextmanager
def copied(folder: Path) -> Iterator[Path]:
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    try:
        yield copy
    finally:
        shutil.rmtree(copy)


@pytest.mark.usefixtures("nothing_in_the_background")
@pytest.mark.parametrize("count", [0, SMALL - 5, MANY])
def test_what_was_changed_is_there_after_a_kill_at_any_time(tmp_path: Path, count: int) -> None:
    filled(tmp_path / "a", count)
    found = Catalogue(tmp_path / "a")
    chance = random.Random(count)
    for step in range(60):
        tags = [f"t{chance.randrange(MANY)}" for _ in range(chance.randrange(3))]
        digest = entry(chance.randrange(MANY)).digest
        match chance.randrange(4):
            case 0:
                found.delete_tag(f"t{chance.randrange(MANY)}")
            case 1:
                found.delete_manifest(digest)
            case _:
                found.put(entry(chance.randrange(2 * MANY)), tags)
        if chance.random() < 0.1:
            found.flush()
        assert read_again(tmp_path / "a") == state(found), step
    found.close()
    assert not (tmp_path / "a" / ".journal").exists()
    assert read_again(tmp_path / "a") == state(found)


@pytest.mark.usefixtures("nothing_in_the_background")
def test_a_kill_between_the_index_and_the_journal_changes_nothing(tmp_path: Path) -> None:
    filled(tmp_path, MANY)
    found = Catalogue(tmp_path)
    found.delete_manifest(entry(1).digest)
    found.put(entry(1), ["again"])
    found.put(entry(2), ["moved"])
    found.put(entry(3), ["moved"])
    found.delete_tag("t4")
    journal = (tmp_path / ".journal").read_bytes()
    found.flush()
    (tmp_path / ".journal").write_bytes(journal)
    assert state(Catalogue(tmp_path)) == state(found)


@pytest.mark.usefixtures("nothing_in_the_background")
def test_a_change_that_was_not_written_completely_is_ignored(tmp_path: Path) -> None:
    filled(tmp_path, MANY)
    found = Catalogue(tmp_path)
    found.put(entry(1), ["whole"])
    before = state(found)
    with (tmp_path / ".journal").open("ab") as journal:
        journal.write(b'{"untag":"whole"')
    again = Catalogue(tmp_path)
    assert state(again) == before
    again.delete_tag("t7")
    assert state(Catalogue(tmp_path)) == state(again)


@pytest.mark.usefixtures("nothing_in_the_background")
@pytest.mark.parametrize(
    "line",
    [
        b"\0" * 64 + b"\n",
        b"[" * 100_000 + b"\n",
        b'{"put":5,"tags":[]}\n',
        b'{"put":{"mediaType":1},"tags":[]}\n',
        b'{"untag":["t1"]}\n',
        b'{"delete":"nonsense"}\n',
        b'{"delete":null}\n',
    ],
)
def test_what_is_not_a_change_is_ignored_at_the_end_and_damage_before_others(tmp_path: Path, line: bytes) -> None:
    filled(tmp_path, MANY)
    found = Catalogue(tmp_path)
    found.put(entry(1), ["whole"])
    before = state(found)
    journal = (tmp_path / ".journal").read_bytes()
    (tmp_path / ".journal").write_bytes(journal + line)
    assert state(Catalogue(tmp_path)) == before
    (tmp_path / ".journal").write_bytes(line + journal)
    again = Catalogue(tmp_path)
    for _ in range(2):
        with pytest.raises(DamagedContent, match=r"\.journal is damaged in line 1"):
            again.put(entry(2), ["new"])
    assert (tmp_path / ".journal").read_bytes() == line + journal


@pytest.mark.usefixtures("nothing_in_the_background")
def test_changes_during_a_flush_stay_in_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, MANY)
    found = Catalogue(tmp_path)
    found.put(entry(1), ["before"])
    encoded = catalogue._encoded

    def slow(entries: list[Descriptor]) -> Iterator[bytes]:
        found.put(entry(2), ["during"])
        return encoded(entries)

    monkeypatch.setattr(catalogue, "_encoded", slow)
    found.flush()
    monkeypatch.undo()
    assert len((tmp_path / ".journal").read_bytes().splitlines()) == 1
    assert state(Catalogue(tmp_path)) == state(found)
    assert found.manifest("during") == entry(2)


@pytest.mark.usefixtures("nothing_in_the_background")
@pytest.mark.parametrize("count", [1, MANY], ids=["few", "many"])
@pytest.mark.parametrize("where", ["write", "fsync"])
def test_a_change_that_the_disk_does_not_take_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, where: str
) -> None:
    filled(tmp_path, count)
    found = Catalogue(tmp_path, sync=True)
    before = state(found)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def part(file: FileIO, data: bytes) -> None:
        file.write(data[:9])
        full()

    if where == "write":
        monkeypatch.setattr(catalogue, "write_all", part)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="no space left on the disk"):
        found.put(entry(MANY), ["new"])
    assert state(found) == before == state(Catalogue(tmp_path))
    monkeypatch.undo()
    found.put(entry(MANY), ["new"])
    assert state(Catalogue(tmp_path)) == state(found) != before


def test_a_write_that_takes_nothing_is_an_error(tmp_path: Path) -> None:
    class Stuck(FileIO):
        def write(self, data: Any, /) -> int:
            return 0

    with Stuck(tmp_path / "file", "w") as file, pytest.raises(OSError, match="nothing could be written"):
        full_disk.write_all(file, b"data")


def test_a_file_that_takes_some_bytes_at_a_time_gets_them_all(tmp_path: Path) -> None:
    class Slow(FileIO):
        def write(self, data: Any, /) -> int:
            return super().write(data[:3])

    with Slow(tmp_path / "file", "w") as file:
        full_disk.write_all(file, LAYER)
    assert (tmp_path / "file").read_bytes() == LAYER


def test_a_push_writes_one_line_however_many_manifests_there_are(tmp_path: Path) -> None:
    layout = filled(tmp_path / "team+app", MANY)
    before = (layout.path / "index.json").read_bytes()
    with wire(tmp_path) as http:
        for number in range(3):
            put_document(http, ImageIndex(annotations={"new": str(number)}), f"new{number}")
        assert (layout.path / "index.json").read_bytes() == before
        assert len((layout.path / ".journal").read_bytes().splitlines()) == 3
    # At the end, other tools find everything in index.json.
    assert len(layout.roots()) == MANY + 3
    assert not (layout.path / ".journal").exists()


def test_the_index_follows_while_the_server_runs(tmp_path: Path) -> None:
    layout = filled(tmp_path / "team+app", MANY)
    with wire(tmp_path) as http:
        put_document(http, ImageIndex(annotations={"new": "1"}), "new")
        for _ in range(200):
            if len(layout.roots()) > MANY:
                break
            threading.Event().wait(0.05)
        assert len(layout.roots()) == MANY + 1


def test_a_repository_whose_index_is_larger_than_a_manifest_may_be_still_answers(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "team+app")
    # As long as 20,000 entries; making those takes longer than the test.
    roots = [entry(number).annotated(annotations={TAG: f"t{number}", "note": "x" * 10_000}) for number in range(500)]
    layout.set_roots(roots)
    assert (layout.path / "index.json").stat().st_size > MAX_MANIFEST_BYTES
    with wire(tmp_path) as http:
        assert http.head(f"{API}/manifests/t499").headers["docker-content-digest"] == entry(499).digest
        assert put_document(http, ImageIndex(annotations={"new": "1"}), "new").status_code == 201
        assert http.delete(f"{API}/manifests/t1").status_code == 202
        assert http.delete(f"{API}/manifests/{entry(2).digest}").status_code == 202
        assert http.head(f"{API}/manifests/t2").status_code == 404
    with wire(tmp_path) as http:
        assert [http.head(f"{API}/manifests/{tag}").status_code for tag in ("t1", "t2", "t3", "new")] == [
            404,
            404,
            200,
            200,
        ]


def test_beyond_the_limit_pushes_are_rejected_and_reads_and_deletes_work(tmp_path: Path) -> None:
    filled(tmp_path / "team+app", 10)
    with wire(tmp_path, settings=ServerSettings(most_entries=20)) as http:
        new = ImageIndex(annotations={"new": "1"})
        for reference in (None, "new"):
            answer = put_document(http, new, reference)
            assert (answer.status_code, code_of(answer)) == (507, "DENIED")
            assert "20 manifests and tags; at most 20 are allowed; delete some first" in answer.text
        assert http.head(f"{API}/manifests/{new.descriptor.digest}").status_code == 404
        # What is there may be pushed again, and its tag may move.
        again = ImageIndex(annotations={"n": "1"})
        assert put_document(http, again, "t2").status_code == 201
        assert len(http.get(f"{API}/tags/list").json()["tags"]) == 10
        assert http.delete(f"{API}/manifests/t3").status_code == 202
        assert http.delete(f"{API}/manifests/{entry(3).digest}").status_code == 202
        assert put_document(http, new, "new").status_code == 201


def test_a_damaged_index_is_a_fault_of_the_server_and_of_that_repository_alone(tmp_path: Path) -> None:
    layout = filled(tmp_path / "team+app", 1)
    (layout.path / "index.json").write_text('{"manifests": [{}]}')
    with pytest.raises(DamagedContent, match="is not the index of an OCI layout"):
        Catalogue(layout.path).tags()
    with wire(tmp_path) as http:
        assert http.get(f"{API}/manifests/t0").status_code == 500
        put_image(http, "v1", "other")
        assert http.get("/v2/other/manifests/v1").status_code == 200


def test_a_repository_whose_folder_was_removed_is_gone_and_can_be_pushed_to(tmp_path: Path) -> None:
    with wire(tmp_path) as http:
        put_image(http, "v1")
        shutil.rmtree(tmp_path / "team+app")
        assert http.get(f"{API}/manifests/v1").status_code == 404
        put_image(http, "v1")
        assert http.get(f"{API}/manifests/v1").status_code == 200


@pytest.mark.parametrize("what", ["a manifest is parsed", "a blob is hashed"])
def test_others_are_answered_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    begun, go_on = threading.Event(), threading.Event()
    of_stream = Digest.of_stream

    def slow_parse(*arguments: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return parse(*arguments, **options)

    def slow_hash(*arguments: Any) -> Digest:
        begun.set()
        assert go_on.wait(20)
        return of_stream(*arguments)

    def work(http: httpx.Client) -> int:
        if what == "a blob is hashed":
            return http.put(start(http), params={"digest": Digest.of(LAYER)}, content=LAYER).status_code
        return put_document(http, ImageIndex(), "v1").status_code

    with wire(tmp_path) as http, ThreadPoolExecutor(1) as pool:
        put_blob(http, b"first")
        monkeypatch.setattr("soci_pipeline.registry.server.manifests.parse", slow_parse)
        monkeypatch.setattr(Digest, "of_stream", slow_hash)
        running = pool.submit(work, http)
        try:
            assert begun.wait(20)
            assert http.get(f"{API}/tags/list").status_code == 200
        finally:
            go_on.set()
        assert running.result() == 201


def test_many_pushes_at_once_keep_every_tag_in_a_large_repository(tmp_path: Path) -> None:
    filled(tmp_path / "team+app", MANY)
    with wire(tmp_path) as http, ThreadPoolExecutor(8) as pool:
        documents = [ImageIndex(annotations={"new": str(number)}) for number in range(60)]
        pushed = pool.map(lambda each: put_document(http, each, f"new{each.annotations['new']}").status_code, documents)
        assert set(pushed) == {201}
    with wire(tmp_path) as http:
        assert len(http.get(f"{API}/tags/list").json()["tags"]) == MANY + 60
        assert http.head(f"{API}/manifests/new7").headers["docker-content-digest"] == documents[7].descriptor.digest


def test_an_immutable_tag_moves_for_none_of_many_pushes_at_once(tmp_path: Path) -> None:
    with wire(tmp_path, settings=ServerSettings(immutable=lambda _: True)) as http, ThreadPoolExecutor(8) as pool:
        documents = [ImageIndex(annotations={"new": str(number)}) for number in range(16)]
        statuses = list(pool.map(lambda each: put_document(http, each, "v1").status_code, documents))
        assert statuses.count(201) == 1
        winner = documents[statuses.index(201)]
        answer = http.get(f"{API}/manifests/v1", headers={"Accept": OCI_INDEX})
        assert answer.content == winner.encode()
