"""Why a sound layer has no zTOC. Apart from the records, so that indexing needs no pydantic."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a sound layer has no zTOC."""

    TOO_SMALL = "too-small"
    ZSTD = "zstd"
    UNSUPPORTED_ENTRY = "unsupported-entry"
    HARDLINK_WITH_SIZE = "hardlink-with-size"
    TRAILING_BYTES = "trailing-bytes"
    FOREIGN = "foreign"
