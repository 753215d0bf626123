"""Markdown of values that somebody else chose: a branch, a source or a reason says what it says, and does nothing else.

Everything but letters, digits and a few signs becomes a character reference, which no renderer takes for markup, be it
a pipe in a table, a backtick, a link or HTML.
"""

import re
from collections.abc import Sequence

# What digests, tags, references and versions are made of; nothing of it ends a code span or a table's cell.
_PLAIN = re.compile(r"[A-Za-z0-9._:/@+=\-\[\]]+\Z")
_HARMLESS = re.compile(r"[A-Za-z0-9 .,:;?'\"/-]")
_LIMIT = 300


def text(value: object) -> str:
    """A value as plain text on one line; what is longer than 300 characters is cut."""
    said = str(value)
    shown = said if len(said) <= _LIMIT else f"{said[:_LIMIT]}…"
    return "".join(_inert(character) for character in shown)


def code(value: object) -> str:
    """A digest, a tag, a reference in type of one width; any other text as `text`."""
    said = str(value)
    return f"`{said}`" if _PLAIN.match(said) and len(said) <= _LIMIT else text(said)


def link(label: str, address: str | None) -> str:
    """A label of markdown, with a link where there is an address (of ours: it must hold no angle brackets)."""
    return label if address is None else f"[{label}](<{address}>)"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose cells are markdown already."""
    return [_line(header), _line(["---"] * len(header)), *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _inert(character: str) -> str:
    if not character.isprintable():
        # Line ends, controls, and what turns the direction of a text.
        return " "
    if _HARMLESS.match(character) or (character.isalnum() and not character.isascii()):
        return character
    return f"&#{ord(character)};"
