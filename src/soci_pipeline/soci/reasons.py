"""Why a sound layer has no zTOC. Apart from the records, so that indexing needs no pydantic."""

from collections.abc import Iterable, Mapping
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


WHY: Mapping[Reason, str] = {
    Reason.TOO_SMALL: "smaller than the smallest layer that is indexed; fetching it whole is quicker",
    Reason.ZSTD: "compressed with zstd, which SOCI cannot index; build with gzip",
    Reason.UNSUPPORTED_ENTRY: "has an entry that lazy loading would show wrongly",
    Reason.HARDLINK_WITH_SIZE: "has a hard link with contents of its own, which lazy loading would show wrongly",
    Reason.TRAILING_BYTES: (
        "has bytes behind the end of its compressed stream; containerd cannot unpack it without pigz, so the image may "
        "not start; compress the layer again"
    ),
    Reason.FOREIGN: "is kept by another server than this registry, or is of a type that SOCI does not know",
}
"""What each reason means to whoever built the image."""


def why_not(reason: Reason) -> str:
    """A reason, with what it means."""
    return f"{reason.value}: {WHY[reason]}"


def explained(reasons: Iterable[Reason | None]) -> list[str]:
    """A line for each reason that there is, in their own order."""
    found = set(reasons)
    return [why_not(reason) for reason in Reason if reason in found]


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
