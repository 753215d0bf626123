"""Verification modes. They are separate from `verify`, so that parameter models do not import it."""

from enum import StrEnum


class VerifyMode(StrEnum):
    """How much of the pushed image is read back before a tag moves."""

    SAMPLE = "sample"
    ALL = "all"
    OFF = "off"


VERIFY_MEANING = (
    "How much of the pushed content is read back before a tag moves. sample: every manifest and zTOC, and some spans "
    "of "
    "each layer. all: every byte. off: nothing."
)
