"""Diff ids: what a layer holds uncompressed, in whatever pieces it comes."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soci_pipeline.errors import DamagedContent
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from soci_pipeline.verification.diff_id import DiffId
from tests.support.tars import gzip_members, gzipped, text


def fed(data: bytes, media_type: str, size: int) -> DiffId:
    diff_id = DiffId(media_type)
    for start in range(0, len(data), size):
        diff_id.update(data[start : start + size])
    return diff_id


@given(pieces=st.lists(st.binary(max_size=300), min_size=1, max_size=4), size=st.integers(1, 50))
def test_gzip_of_any_number_of_members_in_any_pieces(pieces: list[bytes], size: int) -> None:
    content = b"".join(pieces)

    assert fed(gzip_members(pieces), OCI_LAYER_GZIP, size).digest() == Digest.of(content)
    assert fed(content, OCI_LAYER, size).digest() == Digest.of(content)


@pytest.mark.parametrize("size", [1000, 1 << 20, 4 << 20])
def test_what_inflates_to_many_times_its_size_is_read_to_the_end(size: int) -> None:
    content = bytes(9 << 20) + text(100)

    assert fed(gzipped(content, level=9), OCI_LAYER_GZIP, size).digest() == Digest.of(content)


@pytest.mark.parametrize("cut", [1, 8, 20])
def test_a_stream_that_is_cut_off_or_no_gzip_is_damaged(cut: int) -> None:
    with pytest.raises(DamagedContent, match="truncated"):
        fed(gzipped(text(5000))[:-cut], OCI_LAYER_GZIP, 100).digest()
    with pytest.raises(DamagedContent, match="cannot be inflated"):
        fed(text(5000), OCI_LAYER_GZIP, 100)
    with pytest.raises(DamagedContent, match="truncated"):
        fed(b"", OCI_LAYER_GZIP, 1).digest()


def test_zstd_and_unknown_types_have_no_diff_id_here() -> None:
    assert fed(b"anything", OCI_LAYER_ZSTD, 3).digest() is None
    assert fed(b"anything", "application/x", 3).digest() is None


def test_a_wrong_checksum_is_damage() -> None:
    data = bytearray(gzip.compress(b"content", mtime=0))
    data[-5] ^= 1

    with pytest.raises(DamagedContent):
        fed(bytes(data), OCI_LAYER_GZIP, 7).digest()
