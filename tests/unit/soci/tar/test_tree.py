"""A layer's entries unpacked in their order, compared with what a real extractor leaves on the disk."""

import io
import shutil
import tarfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.media_types import OCI_LAYER
from soci_pipeline.soci.index.prefetch import prefetch_spans
from soci_pipeline.soci.ztoc.build import build_ztoc
from soci_pipeline.soci.ztoc.codec import Ztoc, decode
from soci_pipeline.soci.ztoc.extract import file_bytes, find_file
from tests.support.tars import Entry, directory, hardlink, noise, symlink, tar


def _indexed(layer: bytes, span_size: int = 1 << 16) -> Ztoc:
    return decode(build_ztoc(io.BytesIO(layer), OCI_LAYER, span_size=span_size).data)


def _read(entries: list[Entry], path: str) -> bytes:
    layer = tar(entries)
    ztoc = _indexed(layer)
    return file_bytes(ztoc, find_file(ztoc, path), lambda start, end: layer[start:end])


REPLACED = [
    directory("etc"),
    Entry("etc/file", b"first\n"),
    hardlink("etc/kept", "etc/file"),
    Entry("etc/file", b"second, longer\n"),
    hardlink("etc/new", "etc/file"),
    hardlink("etc/again", "etc/kept"),
]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("etc/kept", b"first\n"),
        ("/etc/again", b"first\n"),
        ("./etc/file", b"second, longer\n"),
        ("etc/new", b"second, longer\n"),
    ],
)
def test_a_hard_link_is_the_file_that_its_target_was_when_the_link_was_made(path: str, content: bytes) -> None:
    assert _read(REPLACED, path) == content


@pytest.mark.parametrize(
    ("entries", "path", "content"),
    [
        ([Entry("a", b"1"), hardlink("b", "a"), symlink("a", "x"), Entry("x", b"2")], "b", b"1"),
        ([Entry("a", b"1"), hardlink("b", "./a"), directory("a"), Entry("a/c", b"2")], "b", b"1"),
        ([Entry("d/a", b"1"), hardlink("b", "/d/a"), Entry("d", b"2")], "b", b"1"),
        ([Entry("usr/lib/a", b"1"), symlink("lib", "usr/lib"), hardlink("b", "lib/a")], "b", b"1"),
        ([Entry("usr/lib/a", b"1"), symlink("lib", "/usr/lib"), Entry("lib/a", b"2")], "usr/lib/a", b"2"),
        ([Entry("usr/a", b"1"), symlink("x/up", "../usr"), hardlink("b", "x/up/a")], "b", b"1"),
        ([Entry("a", b"1"), hardlink("b", "a"), Entry("b", b"2")], "a", b"1"),
        ([Entry("a", b"1"), hardlink("b", "a"), hardlink("a", "b")], "a", b"1"),
        (
            [Entry("d/a", b"1"), symlink("s", "d"), Entry("s/b", b"2"), symlink("s", "e"), Entry("s/b", b"3")],
            "d/b",
            b"2",
        ),
        (
            [Entry("d/a", b"1"), symlink("s", "d"), Entry("s/b", b"2"), symlink("s", "e"), Entry("s/b", b"3")],
            "e/b",
            b"3",
        ),
        ([Entry("d/a", b"1"), Entry("d", b"2"), directory("d"), Entry("d/c", b"3")], "d/c", b"3"),
        ([Entry("a/../b", b"1"), hardlink("c", "x/../../b")], "c", b"1"),
    ],
)
def test_names_are_replaced_as_an_extractor_replaces_them(entries: list[Entry], path: str, content: bytes) -> None:
    assert _read(entries, path) == content


@pytest.mark.parametrize(
    ("entries", "path", "reason"),
    [
        ([hardlink("b", "a"), Entry("a", b"1")], "b", "which the layer does not contain before the link"),
        ([Entry("a", b"1"), hardlink("a", "a")], "a", "which the layer does not contain before the link"),
        ([hardlink("b", "a"), hardlink("c", "b"), Entry("a", b"1")], "c", "does not contain before the link"),
        ([directory("d"), hardlink("b", "d")], "b", "does not contain before the link"),
        ([Entry("a", b"1"), symlink("s", "a"), hardlink("b", "s")], "b", "but a symlink"),
        ([Entry("d/a", b"1"), Entry("d", b"2")], "d/a", "the layer has no"),
        ([symlink("a", "b"), symlink("b", "a"), Entry("a/x", b"1")], "a/x", "the layer has no"),
        ([symlink("s", "/".join(["d"] * 5000)), Entry("s/x", b"1")], "s/x", "the layer has no"),
        ([directory("d")], "d", "but a directory"),
        ([directory("d")], "/", "but a directory"),
    ],
)
def test_what_an_extractor_could_not_make_is_refused_by_name(entries: list[Entry], path: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        _read(entries, path)


def test_prefetch_names_the_spans_of_the_file_that_a_container_sees() -> None:
    layer = tar(
        [
            Entry("first", noise(100_000)),
            hardlink("kept", "first"),
            Entry("pad", noise(100_000, seed=2)),
            Entry("first", noise(100_000, seed=3)),
        ]
    )
    ztoc = _indexed(layer, 10_000)
    found = prefetch_spans([ztoc], ["/kept", "/none"])
    (kept,) = found.spans
    (new,) = prefetch_spans([ztoc], ["first"]).spans
    assert found.files == {"/kept"}
    assert kept[-1][1] < new[0][0]
    assert len(kept) == len(new) == 1


_NAMES = st.sampled_from(["a", "b", "c", "d/a", "d/b", "d", "e"])
_STEPS = st.one_of(
    st.builds(lambda name, number: Entry(name, b"%d" % number), _NAMES, st.integers(0, 999)),
    st.builds(hardlink, _NAMES, _NAMES),
    st.builds(directory, st.sampled_from(["d", "e"])),
)


@given(entries=st.lists(_STEPS, max_size=12))
def test_every_file_is_what_unpacking_leaves(entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("unpacked")
    layer = tar(entries[: _unpack(tar(entries), folder)])
    ztoc = _indexed(layer)
    for path in folder.rglob("*"):
        if path.is_file():
            entry = find_file(ztoc, str(path.relative_to(folder)))
            assert file_bytes(ztoc, entry, lambda start, end: layer[start:end]) == path.read_bytes()


def _unpack(layer: bytes, folder: Path) -> int:
    """As containerd does: what has a name goes before an entry takes it, unless both are folders.

    Returns how many entries were unpacked before one that cannot be.
    """
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        for number, member in enumerate(archive):
            path, target = folder / member.name, folder / member.linkname
            is_lost = member.islnk() and (path == target or not target.is_file() or path in target.parents)
            if is_lost or any(parent.is_file() for parent in path.parents):
                return number
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not (path.is_dir() and member.isdir()):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if member.isdir():
                path.mkdir(exist_ok=True)
            elif member.islnk():
                path.hardlink_to(target)
            else:
                content = archive.extractfile(member)
                assert content is not None
                path.write_bytes(content.read())
        return len(archive.getmembers())
