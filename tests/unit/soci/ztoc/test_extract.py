"""Single spans and files, read through a zTOC and nothing else."""

import io
from collections.abc import Callable

import pytest

from soci_pipeline.errors import DamagedContent, InvalidInput
from soci_pipeline.oci.media_types import OCI_LAYER, OCI_LAYER_GZIP
from soci_pipeline.soci.ztoc.build import build_ztoc
from soci_pipeline.soci.ztoc.codec import Ztoc, decode
from soci_pipeline.soci.ztoc.extract import file_bytes, find_file, read_span
from tests.support.tars import Entry, directory, gzip_members, gzipped, hardlink, noise, symlink, tar, text

FILES = {"etc/small": b"small", "usr/text": text(300_000), "usr/noise": noise(150_000), "empty": b""}
TAR = tar([Entry(name, data) for name, data in FILES.items()])


def indexed(layer: bytes, media_type: str = OCI_LAYER_GZIP, span_size: int = 30_000) -> Ztoc:
    return decode(build_ztoc(io.BytesIO(layer), media_type, span_size=span_size).data)


def reading(layer: bytes, ranges: list[tuple[int, int]]) -> Callable[[int, int], bytes]:
    def read(start: int, end: int) -> bytes:
        ranges.append((start, end))
        return layer[start:end]

    return read


LAYERS = {
    "gzip": (gzipped(TAR), OCI_LAYER_GZIP),
    "level 1": (gzipped(TAR, level=1), OCI_LAYER_GZIP),
    "stored": (gzipped(TAR, level=0), OCI_LAYER_GZIP),
    "members": (gzip_members([TAR[:100], TAR[100:200_001], b"", TAR[200_001:]]), OCI_LAYER_GZIP),
    "plain": (TAR, OCI_LAYER),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_every_span_is_its_part_of_the_tar(kind: str) -> None:
    layer, media_type = LAYERS[kind]
    ztoc = indexed(layer, media_type)
    assert ztoc.spans > 3
    whole = b"".join(read_span(ztoc, span, layer[slice(*ztoc.stored_range(span))]) for span in range(ztoc.spans))
    assert whole[: ztoc.uncompressed_size] == TAR[: ztoc.uncompressed_size]


@pytest.mark.parametrize("kind", LAYERS)
def test_a_file_is_read_from_its_spans_alone(kind: str) -> None:
    layer, media_type = LAYERS[kind]
    ztoc = indexed(layer, media_type)
    for name, data in FILES.items():
        ranges: list[tuple[int, int]] = []
        entry = find_file(ztoc, f"/{name}")
        assert file_bytes(ztoc, entry, reading(layer, ranges)) == data
        assert len(ranges) == len(ztoc.spans_of(entry.offset, entry.offset + entry.size))
    small: list[tuple[int, int]] = []
    file_bytes(ztoc, find_file(ztoc, "etc/small"), reading(layer, small))
    assert sum(end - start for start, end in small) < len(layer) / 2


def test_a_changed_span_is_refused() -> None:
    layer = gzipped(TAR)
    ztoc = indexed(layer)
    start, end = ztoc.stored_range(1)
    with pytest.raises(DamagedContent, match="span 1"):
        read_span(ztoc, 1, layer[start : end - 1] + b"\0\0")


def test_a_span_that_is_not_there_is_refused() -> None:
    ztoc = indexed(gzipped(TAR))
    for span in (-1, ztoc.spans):
        with pytest.raises(InvalidInput):
            read_span(ztoc, span, b"")


LINKS = tar(
    [
        directory("d"),
        Entry("d/file", b"old"),
        Entry("d/file", b"new"),
        hardlink("hard", "d/file"),
        hardlink("lost", "nowhere"),
        hardlink("round", "round"),
        symlink("soft", "d/file"),
    ]
)


def test_the_last_of_a_name_counts_and_hard_links_are_followed() -> None:
    layer = gzipped(LINKS)
    ztoc = indexed(layer)
    for path in ("d/file", "./d/file", "/d//file", "hard"):
        assert file_bytes(ztoc, find_file(ztoc, path), reading(layer, [])) == b"new"


@pytest.mark.parametrize("path", ["d", "soft", "lost", "round", "none"])
def test_what_is_no_regular_file_is_refused_by_name(path: str) -> None:
    with pytest.raises(InvalidInput):
        find_file(indexed(gzipped(LINKS)), path)
