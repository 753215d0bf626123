"""Reasons why a valid layer has no zTOC. Separate from `records`, so that indexing does not import pydantic."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

from soci_pipeline.oci.media_types import Compression, is_foreign_layer, layer_compression

if TYPE_CHECKING:
    from soci_pipeline.oci.descriptor import Descriptor


class Reason(StrEnum):
    """Reason why a valid layer has no zTOC."""

    TOO_SMALL = "too-small"
    ZSTD = "zstd"
    UNSUPPORTED_ENTRY = "unsupported-entry"
    HARDLINK_WITH_SIZE = "hardlink-with-size"
    TRAILING_BYTES = "trailing-bytes"
    FOREIGN = "foreign"


WHY: Mapping[Reason, str] = {
    Reason.TOO_SMALL: "smaller than the minimum size; fetching it whole is faster",
    Reason.ZSTD: "compressed with zstd, which SOCI cannot index; build with gzip",
    Reason.UNSUPPORTED_ENTRY: "has an entry that lazy loading would present incorrectly",
    Reason.HARDLINK_WITH_SIZE: "has a hard link with content, which lazy loading would present incorrectly",
    Reason.TRAILING_BYTES: (
        "has bytes after the end of its compressed stream; containerd cannot unpack it without pigz, so the image may "
        "not start; compress the layer again"
    ),
    Reason.FOREIGN: "is stored on another server, or has a media type that SOCI does not support",
}
"""What each reason means for the author of the image."""


def explained_reason(reason: Reason) -> str:
    """Format a reason with its explanation."""
    return f"{reason.value}: {WHY[reason]}"


def explained(reasons: Iterable[Reason | None]) -> list[str]:
    """Format one line for each distinct reason, in the order of `Reason`."""
    found = set(reasons)
    return [explained_reason(reason) for reason in Reason if reason in found]


def reason_by_type(media_type: str) -> Reason | None:
    """Return why a layer of this media type cannot have a zTOC; None if it can."""
    compression = layer_compression(media_type)
    if compression is Compression.ZSTD:
        return Reason.ZSTD
    return Reason.FOREIGN if is_foreign_layer(media_type) or compression is Compression.UNKNOWN else None


def reason_by_descriptor(layer: "Descriptor", min_layer_size: int, *, is_here: bool = False) -> Reason | None:
    """Return why a layer gets no zTOC according to its descriptor; None if that depends on its content.

    A layer with ``urls`` may only be available there, which does not matter if it ``is_here``, as in the reference.
    ``min_layer_size`` is in bytes of the stored layer. Size is checked last, since the other reasons do not depend on
    that setting.
    """
    reason = reason_by_type(layer.media_type)
    if reason is None and layer.urls and not is_here:
        reason = Reason.FOREIGN
    if reason is None and layer.size < min_layer_size:
        reason = Reason.TOO_SMALL
    return reason
