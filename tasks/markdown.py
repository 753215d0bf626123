"""Markdown for untrusted values (a branch, a source, a reason): they are shown, but never interpreted.

Everything except letters, digits and a few signs becomes a character reference, which no renderer interprets as markup,
be it a pipe in a table, a backtick, a link or HTML.
"""

import re
from collections.abc import Sequence

# The characters of digests, tags, references and versions; none of them ends a code span or a table cell.
_PLAIN = re.compile(r"[A-Za-z0-9._:/@+=\-\[\]]+\Z")
_HARMLESS = re.compile(r"[A-Za-z0-9 .,:;?'\"/-]")
_LIMIT = 300


def text(value: object) -> str:
    """Format a value as plain text on one line, cut at 300 characters."""
    said = str(value)
    shown = said if len(said) <= _LIMIT else f"{said[:_LIMIT]}…"
    return "".join(_inert(character) for character in shown)


def code(value: object) -> str:
    """Format a digest, tag or reference in monospace; any other string as `text`."""
    said = str(value)
    return f"`{said}`" if _PLAIN.match(said) and len(said) <= _LIMIT else text(said)


def link(label: str, address: str | None) -> str:
    """Return a Markdown label, as a link if there is a URL (trusted; it must not contain angle brackets)."""
    return label if address is None else f"[{label}](<{address}>)"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table whose cells are Markdown already."""
    return [_line(header), _line(["---"] * len(header)), *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _inert(character: str) -> str:
    if not character.isprintable():
        # Line ends, control characters and bidirectional controls.
        return " "
    if _HARMLESS.match(character) or (character.isalnum() and not character.isascii()):
        return character
    return f"&#{ord(character)};"
