"""Why a layer has no zTOC, as far as its descriptor says."""

import pytest

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import DOCKER_FOREIGN_LAYER_GZIP, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from soci_pipeline.soci.reasons import Reason, reason_by_descriptor


@pytest.mark.parametrize("size", [10, 1000])
@pytest.mark.parametrize(
    ("media_type", "urls", "expected"),
    [
        (OCI_LAYER_ZSTD, (), Reason.ZSTD),
        (DOCKER_FOREIGN_LAYER_GZIP, (), Reason.FOREIGN),
        ("text/plain", (), Reason.FOREIGN),
        (OCI_LAYER_GZIP, ("https://example.com/base",), Reason.FOREIGN),
    ],
)
def test_a_reason_that_no_other_size_would_change_is_named_whatever_the_size(
    media_type: str, urls: tuple[str, ...], expected: Reason, size: int
) -> None:
    layer = Descriptor(media_type=media_type, digest=Digest.of(b""), size=size, urls=urls)
    assert reason_by_descriptor(layer, min_layer_size=100) is expected


@pytest.mark.parametrize(("size", "expected"), [(99, Reason.TOO_SMALL), (100, None)])
def test_addresses_do_not_matter_where_the_layer_is_here(size: int, expected: Reason | None) -> None:
    addressed = Descriptor(media_type=OCI_LAYER_GZIP, digest=Digest.of(b""), size=size, urls=("https://example.com/",))
    assert reason_by_descriptor(addressed, min_layer_size=100, is_here=True) is expected


def test_a_foreign_layer_gets_no_ztoc_even_where_it_is_here() -> None:
    layer = Descriptor(media_type=DOCKER_FOREIGN_LAYER_GZIP, digest=Digest.of(b""), size=1000)
    assert reason_by_descriptor(layer, min_layer_size=100, is_here=True) is Reason.FOREIGN


@pytest.mark.parametrize("media_type", [OCI_LAYER, OCI_LAYER_GZIP])
@pytest.mark.parametrize(("size", "expected"), [(99, Reason.TOO_SMALL), (100, None)])
def test_a_layer_of_a_known_type_is_too_small_or_has_to_be_read(
    media_type: str, size: int, expected: Reason | None
) -> None:
    layer = Descriptor(media_type=media_type, digest=Digest.of(b""), size=size)
    assert reason_by_descriptor(layer, min_layer_size=100) is expected
