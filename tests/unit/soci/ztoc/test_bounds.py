"""The bounds of building a zTOC: bombs, and layers whose zTOC would be too large."""

import io
import tarfile
import time
import tracemalloc

import pytest

from soci_pipeline.errors import HostileArchive
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import OCI_LAYER, OCI_LAYER_GZIP
from soci_pipeline.soci.limits import Limits
from soci_pipeline.soci.ztoc.build import build_ztoc
from tests.support.tars import Entry, gzip_members, gzipped, noise, symlink, tar, tar_of


def special(kind: bytes, data: bytes = b"") -> bytes:
    """An entry that says something of the next one."""
    info = tarfile.TarInfo("special")
    info.type, info.size = kind, len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def test_a_bomb_stops_at_its_limit() -> None:
    bomb = gzipped(bytes(50 << 20), level=9)
    before = time.monotonic()
    with pytest.raises(HostileArchive, match=str(Digest.of(bomb))):
        build_ztoc(io.BytesIO(bomb), OCI_LAYER_GZIP, limits=Limits(uncompressed=1 << 20))
    assert time.monotonic() - before < 10


@pytest.mark.parametrize(
    ("layer", "media_type", "span_size"),
    [
        (gzip_members([b""] * 100 + [tar_of({"a": b"a"})]), OCI_LAYER_GZIP, 4 << 20),
        (gzipped(tar_of({"a": noise(400_000)})), OCI_LAYER_GZIP, 1),
        (tar_of({"a": noise(100_000)}), OCI_LAYER, 10),
        (tar_of({f"file-{number}": b"" for number in range(1000)}), OCI_LAYER, 4 << 20),
        (tar([Entry(f"f{number}", pax={"user.x": "x" * 20_000}) for number in range(10)]), OCI_LAYER, 4 << 20),
        (gzipped(special(b"L") * 600 + tar_of({"a": b"a"})), OCI_LAYER_GZIP, 4 << 20),
        (gzipped(special(b"x", b"5 a=\n" * 2000) + tar_of({"a": b"a"})), OCI_LAYER_GZIP, 4 << 20),
    ],
    ids=[
        "checkpoints before any output",
        "tiny gzip spans",
        "tiny plain spans",
        "many entries",
        "large records",
        "nothing but long names",
        "records that replace one another",
    ],
)
def test_a_ztoc_past_its_bound_is_refused(layer: bytes, media_type: str, span_size: int) -> None:
    with pytest.raises(HostileArchive, match=str(Digest.of(layer))):
        build_ztoc(io.BytesIO(layer), media_type, span_size=span_size, limits=Limits(ztoc=150_000))


LONG_LINK = tar([symlink("a", "b")], dialect=tarfile.USTAR_FORMAT)[:512]
LONG = [Entry(f"{'p' * 140}/{'n' * 90}{number}", kind=tarfile.SYMTYPE, link="l" * 99) for number in range(500)]


@pytest.mark.parametrize(
    ("layer", "media_type"),
    [
        (tar(LONG, dialect=tarfile.USTAR_FORMAT), OCI_LAYER),
        (gzipped(tar(LONG, dialect=tarfile.USTAR_FORMAT)), OCI_LAYER_GZIP),
        (gzipped(tar_of({"a": b"a"})), OCI_LAYER_GZIP),
    ],
    ids=["long names", "long names in gzip", "one file"],
)
def test_no_ztoc_is_larger_than_its_bound(layer: bytes, media_type: str) -> None:
    size = build_ztoc(io.BytesIO(layer), media_type).size
    with pytest.raises(HostileArchive, match=str(Digest.of(layer))):
        build_ztoc(io.BytesIO(layer), media_type, limits=Limits(ztoc=size - 1))
    assert build_ztoc(io.BytesIO(layer), media_type, limits=Limits(ztoc=2 * size)).size == size


def test_a_name_a_link_and_records_for_each_entry_are_not_read_in_vain() -> None:
    each = special(b"K", b"k" * 150) + special(b"L", b"l" * 150) + special(b"x", b"5 a=\n6 bb=\n") + LONG_LINK
    built = build_ztoc(io.BytesIO(each * 300 + bytes(1024)), OCI_LAYER, limits=Limits(ztoc=300 * 1000))
    assert built.entries == 300


def test_a_ztoc_may_be_larger_than_its_layer() -> None:
    layer = gzipped(tar(LONG, dialect=tarfile.USTAR_FORMAT))
    assert build_ztoc(io.BytesIO(layer), OCI_LAYER_GZIP).size > 10 * len(layer)


def test_the_bound_of_a_ztoc_bounds_the_memory_too() -> None:
    records = {f"{number:04x}": "" for number in range(20_000)}
    layer = tar([Entry(f"file-{number}", pax=records) for number in range(20)])
    tracemalloc.start()
    try:
        with pytest.raises(HostileArchive):
            build_ztoc(io.BytesIO(layer), OCI_LAYER, limits=Limits(ztoc=8 << 20))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20


def test_an_extended_header_past_one_mebibyte_is_refused() -> None:
    layer = tar([Entry("a", pax={"user.x": "x" * (1 << 20)})])
    with pytest.raises(HostileArchive, match="extended header"):
        build_ztoc(io.BytesIO(layer), OCI_LAYER)
