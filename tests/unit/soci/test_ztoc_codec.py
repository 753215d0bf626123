"""zTOCs from other people: any bytes are a zTOC that fits together, or are refused by name."""

import contextlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soci_pipeline.oci.media_types import OCI_LAYER, OCI_LAYER_GZIP
from soci_pipeline.soci.ztoc import build_ztoc
from soci_pipeline.soci.ztoc_codec import InvalidZtoc, decode, encode
from tests.support.tars import Entry, directory, gzipped, tar, text

ARCHIVE = tar([directory("d"), Entry("d/a", text(20_000), pax={"SCHILY.xattr.user.a": "1"}), Entry("b")])
ZTOCS = (
    build_ztoc(io.BytesIO(ARCHIVE), OCI_LAYER, span_size=1000).data,
    build_ztoc(io.BytesIO(gzipped(ARCHIVE)), OCI_LAYER_GZIP).data,
)
BOUNDED = settings(max_examples=200, deadline=None, derandomize=True)


@BOUNDED
@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidZtoc):
        decode(data)


@BOUNDED
@given(
    st.sampled_from(ZTOCS), st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_changed_bytes_are_refused_or_read_the_same_after_writing(data: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(data)
    for place, value in changes:
        changed[place % len(changed)] = value
    with contextlib.suppress(InvalidZtoc):
        ztoc = decode(bytes(changed))
        assert decode(encode(ztoc)) == ztoc


@pytest.mark.parametrize("data", ZTOCS)
@pytest.mark.parametrize("length", [0, 1, 3, 4, 40, 1000, -1000, -4])
def test_a_truncated_ztoc_is_refused(data: bytes, length: int) -> None:
    with pytest.raises(InvalidZtoc):
        decode(data[:length])
