"""Why a sound layer has no zTOC. Apart from the records, so that indexing needs no pydantic."""

from enum import StrEnum
from typing import TYPE_CHECKING

from soci_pipeline.oci.media_types import Compression, is_foreign_layer, layer_compression

if TYPE_CHECKING:
    from soci_pipeline.oci.descriptor import Descriptor


class Reason(StrEnum):
    """Why a sound layer has no zTOC."""

    TOO_SMALL = "too-small"
    ZSTD = "zstd"
    UNSUPPORTED_ENTRY = "unsupported-entry"
    HARDLINK_WITH_SIZE = "hardlink-with-size"
    TRAILING_BYTES = "trailing-bytes"
    FOREIGN = "foreign"


def reason_by_type(media_type: str) -> Reason | None:
    """What a layer's media type alone says against a zTOC; None where it says nothing."""
    compression = layer_compression(media_type)
    if compression is Compression.ZSTD:
        return Reason.ZSTD
    return Reason.FOREIGN if is_foreign_layer(media_type) or compression is Compression.UNKNOWN else None


def reason_by_descriptor(layer: "Descriptor", min_layer_size: int, *, is_here: bool = False) -> Reason | None:
    """Why a layer gets no zTOC by what its descriptor says; None where only its bytes can say more.

    A layer with addresses of its own may be nowhere else; they do not matter where it ``is_here`` for certain, as with
    the reference. ``min_layer_size`` is in bytes of the stored layer, and comes last: what is wrong with the type stays
    wrong with another size.
    """
    reason = reason_by_type(layer.media_type)
    if reason is None and layer.urls and not is_here:
        reason = Reason.FOREIGN
    if reason is None and layer.size < min_layer_size:
        reason = Reason.TOO_SMALL
    return reason
