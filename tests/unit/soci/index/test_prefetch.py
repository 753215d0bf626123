"""Which layer's copy of a file is prefetched, through whole conversions of images made for the question."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import SOCI_PREFETCH
from soci_pipeline.soci.index.convert import convert
from soci_pipeline.soci.index.records import IndexVersion, SociOptions
from soci_pipeline.soci.ztoc.store import CacheFolder
from tests.support.images import AMD64, ARM64, Layer, add_image, image_layout
from tests.support.tars import Entry, directory, gzipped, hardlink, noise, symlink, tar

_SPAN = 10_000
_LAYER_DIGEST = "com.amazon.soci.image-layer-digest"

Spans = list[tuple[int, int]]


def _layer(*entries: Entry) -> Layer:
    return Layer(gzipped(tar(entries)))


def _file(name: str, *, seed: int = 0) -> Entry:
    return Entry(name, noise(30_000, seed=seed))


def _spans_by_layer(layout: Layout, soci_index: Digest) -> dict[str, Spans]:
    manifest = json.loads(layout.blob_path(soci_index).read_bytes())
    found: dict[str, Spans] = {}
    for item in manifest["layers"]:
        if item["mediaType"] == SOCI_PREFETCH:
            document = json.loads(layout.blob_path(Digest(item["digest"])).read_bytes())
            spans = [(span["start_span"], span["end_span"]) for span in document["prefetch_spans"]]
            found[item["annotations"][_LAYER_DIGEST]] = spans
    return found


def _prefetched(
    folder: Path, layers: Sequence[Layer], *paths: str, min_layer_size: int = 0, version: IndexVersion = IndexVersion.V2
) -> dict[int, Spans]:
    """The spans that are prefetched, by the position of their layer in the image."""
    source = image_layout(folder / "source", layers=layers)
    options = SociOptions(span_size=_SPAN, min_layer_size=min_layer_size, version=version)
    result = convert(source, folder / "result", options=options, prefetch_files=paths)
    (image,) = result.images
    assert image.soci_index is not None
    spans = _spans_by_layer(result.layout, image.soci_index.digest)
    position = {str(layer.digest): number for number, layer in enumerate(layers)}
    return {position[digest]: found for digest, found in spans.items()}


@pytest.mark.parametrize("version", list(IndexVersion))
def test_only_the_topmost_layer_that_holds_a_path_is_prefetched(tmp_path: Path, version: IndexVersion) -> None:
    layers = [_layer(_file("app", seed=number), _file(f"only{number}", seed=9)) for number in range(3)]
    assert list(_prefetched(tmp_path / "all", layers, "/app", version=version)) == [2]
    assert list(_prefetched(tmp_path / "two", layers, "/app", "/only0", version=version)) == [0, 2]


@pytest.mark.parametrize("asked", ["usr/app", "/usr/app", "./usr/app", "//usr/./app", "/usr/lib/../app"])
@pytest.mark.parametrize("stored", ["usr/app", "/usr/app", "./usr/app"])
def test_the_spelling_of_a_path_does_not_matter(tmp_path: Path, asked: str, stored: str) -> None:
    layers = [_layer(_file("usr/app", seed=1)), _layer(directory("usr/lib"), _file(stored, seed=2))]
    assert list(_prefetched(tmp_path, layers, asked)) == [1]


@pytest.mark.parametrize(
    "above",
    [
        [Entry("usr/.wh.app", b"")],
        [Entry("./usr/.wh.app", b"")],
        [Entry(".wh.usr", b"")],
        [directory("usr"), Entry("usr/.wh..wh..opq", b"")],
        [_file("usr/other"), Entry("usr/.wh..wh..opq", b"")],
        [directory("usr/app")],
        [_file("usr/app/file")],
        [symlink("usr/app", "other")],
        [_file("usr")],
    ],
    ids=["whiteout", "dotted", "folder", "opaque", "opaque-late", "folder-above", "file-below", "symlink", "file"],
)
def test_a_file_that_a_layer_above_deletes_or_replaces_is_not_prefetched(
    tmp_path: Path, above: list[Entry], caplog: pytest.LogCaptureFixture
) -> None:
    layers = [_layer(_file("usr/app"), _file("kept")), _layer(*above, _file("top"))]
    assert list(_prefetched(tmp_path, layers, "usr/app")) == []
    assert "usr/app will not be prefetched: the indexed layers have no regular file there" in caplog.text


@pytest.mark.parametrize("late", [False, True])
def test_a_whiteout_hides_nothing_of_its_own_layer(tmp_path: Path, *, late: bool) -> None:
    above = [_file("usr/app", seed=2), Entry("usr/.wh..wh..opq", b""), Entry("usr/.wh.app", b"")]
    layers = [_layer(_file("usr/app", seed=1)), _layer(*(above if late else reversed(above)))]
    assert list(_prefetched(tmp_path, layers, "usr/app")) == [1]


def test_a_file_that_comes_back_is_prefetched_where_it_came_back(tmp_path: Path) -> None:
    layers = [_layer(_file("app", seed=1)), _layer(Entry(".wh.app", b""), _file("x")), _layer(_file("app", seed=2))]
    assert list(_prefetched(tmp_path, layers, "app")) == [2]


def test_the_last_of_several_entries_of_one_layer_counts(tmp_path: Path) -> None:
    layers = [_layer(_file("app", seed=1)), _layer(_file("app", seed=2), _file("pad", seed=3), _file("app", seed=4))]
    found = _prefetched(tmp_path / "one", layers, "app")
    last = _prefetched(tmp_path / "two", [_layer(_file("a", seed=2), _file("b", seed=3), _file("c", seed=4))], "c")
    assert found == {1: last[0]}


def test_a_hard_link_stands_for_its_file_in_the_topmost_layer(tmp_path: Path) -> None:
    layers = [_layer(_file("tool", seed=1)), _layer(_file("real", seed=2), hardlink("tool", "real"), _file("pad"))]
    by_link = _prefetched(tmp_path / "one", layers, "tool")
    assert by_link == _prefetched(tmp_path / "two", layers, "real")
    assert list(by_link) == [1]


def test_a_folder_that_a_lower_layer_links_to_is_followed(tmp_path: Path) -> None:
    base = _layer(symlink("lib", "usr/lib"), _file("usr/lib/libc.so", seed=1))
    upgrade = _layer(_file("usr/lib/libc.so", seed=2))
    assert list(_prefetched(tmp_path, [base, upgrade], "/lib/libc.so")) == [1]


def test_a_folder_above_a_link_neither_follows_nor_empties_its_target(tmp_path: Path) -> None:
    base = _layer(symlink("link", "target"), _file("target/keep", seed=1), _file("target/new", seed=2))
    above = _layer(directory("link"), Entry("link/.wh..wh..opq", b""), Entry("link/.wh.keep", b""), _file("link/new"))
    assert list(_prefetched(tmp_path / "kept", [base, above], "target/keep")) == [0]
    assert list(_prefetched(tmp_path / "lower", [base, above], "target/new")) == [0]
    assert list(_prefetched(tmp_path / "upper", [base, above], "link/new")) == [1]
    assert list(_prefetched(tmp_path / "gone", [base, above], "link/keep")) == []


def test_a_hard_link_to_a_file_of_a_lower_layer_stands_for_that_file(tmp_path: Path) -> None:
    layers = [_layer(_file("tool", seed=1)), _layer(hardlink("other", "tool"), _file("pad"))]
    assert list(_prefetched(tmp_path, layers, "other")) == [0]


@pytest.mark.parametrize("name", ["usr/.wh..wh.plnk", "usr/.wh..wh.aufs", "usr/.wh."])
def test_names_that_are_no_whiteouts_of_a_file_hide_nothing(tmp_path: Path, name: str) -> None:
    layers = [_layer(_file("usr/app")), _layer(Entry(name, b""), _file("pad"))]
    assert list(_prefetched(tmp_path, layers, "usr/app")) == [0]


def test_layers_without_a_ztoc_do_not_count(tmp_path: Path) -> None:
    small = Layer(gzipped(tar([Entry("app", b"small")])))
    layers = [_layer(_file("app")), small]
    assert list(_prefetched(tmp_path, layers, "app", min_layer_size=len(small.data) + 1)) == [0]


def test_each_image_has_its_own_topmost_layer(tmp_path: Path) -> None:
    """A layer that two platforms share is the topmost in one of them."""
    shared, above = _layer(_file("app", seed=1)), _layer(_file("app", seed=2))
    source = Layout.create(tmp_path / "source")
    images = [add_image(source, AMD64, [shared]), add_image(source, ARM64, [shared, above])]
    source.set_roots([source.add_document(ImageIndex(manifests=tuple(images)))])
    options = SociOptions(span_size=_SPAN, min_layer_size=0)
    result = convert(source, tmp_path / "result", options=options, prefetch_files=["app"])
    digests = [image.soci_index.digest for image in result.images if image.soci_index]
    found = [list(_spans_by_layer(result.layout, digest)) for digest in digests]
    assert found == [[str(shared.digest)], [str(above.digest)]]


def test_known_ztocs_give_the_same_spans(tmp_path: Path) -> None:
    source = image_layout(tmp_path / "source", layers=[_layer(_file("app", seed=1)), _layer(_file("app", seed=2))])
    cache = CacheFolder(tmp_path / "cache")
    options = SociOptions(span_size=_SPAN, min_layer_size=0)
    roots = [
        convert(source, tmp_path / name, options=options, prefetch_files=["app"], ztocs=cache).root
        for name in ("one", "two")
    ]
    assert roots[0] == roots[1]


def test_every_prefetch_document_is_in_the_result(tmp_path: Path) -> None:
    source = image_layout(tmp_path / "source", layers=[_layer(_file("app"))])
    options = SociOptions(span_size=_SPAN, min_layer_size=0)
    result = convert(source, tmp_path / "result", options=options, prefetch_files=["app"])
    (image,) = result.images
    assert image.soci_index is not None
    document = result.layout.read_document(image.soci_index)
    assert isinstance(document, ImageManifest)
    assert [result.layout.has(child) for child in document.children] == [True] * len(document.children)
