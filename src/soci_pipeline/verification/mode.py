"""How much of what was pushed is read again. Apart from the gate, so that parameters need nothing of it."""

from enum import StrEnum


class VerifyMode(StrEnum):
    """How much of what was pushed is read again before a tag moves."""

    SAMPLE = "sample"
    ALL = "all"
    OFF = "off"


VERIFY_MEANING = (
    "How much of what was pushed is read again before a tag moves. sample: every manifest and zTOC, and some spans of "
    "each layer. all: every byte. off: nothing."
)
