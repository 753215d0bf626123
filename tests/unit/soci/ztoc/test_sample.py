"""A stored zTOC is held against a few spans of its layer, in bounded memory."""

import io

import pytest

from soci_pipeline.errors import DamagedContent
from soci_pipeline.oci.media_types import OCI_LAYER_GZIP
from soci_pipeline.soci.ztoc.build import build_ztoc
from soci_pipeline.soci.ztoc.codec import decode
from soci_pipeline.soci.ztoc.sample import MOST_IN_MEMORY, check_sample
from tests.support.tars import Entry, gzipped, tar


def test_a_ztoc_whose_spans_are_too_large_to_be_checked_is_not_believed_and_nothing_is_read() -> None:
    layer = gzipped(tar([Entry("swap", bytes(MOST_IN_MEMORY))]))
    built = build_ztoc(io.BytesIO(layer), OCI_LAYER_GZIP, span_size=1 << 40)

    def read(start: int, end: int) -> bytes:
        pytest.fail(f"bytes {start} to {end} were read")

    with pytest.raises(DamagedContent, match="span 0 is too large for a sample"):
        check_sample(decode(built.data), built.digest, read)
