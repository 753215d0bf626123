"""Read the troubleshooting entries, and find those that an error name or an exit status means.

A heading has the name of the error and its exit status in parentheses; the first paragraph is the summary.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

_FILE: Final = "entries.md"
_HEADING: Final = re.compile(
    r"^# (?P<name>\w+)(?: \((?P<status>\d+)\))?\n\n(?P<summary>.+?)\n\n", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One error; ``status`` is the exit status of a command that ends with it, None if no command does."""

    name: str
    status: int | None
    summary: str
    text: str
    """What happened and what to do, in Markdown."""


def read_entries() -> tuple[Entry, ...]:
    """Return all entries, in the order of their exit statuses."""
    text = files(__package__).joinpath(_FILE).read_text(encoding="utf-8")
    found = list(_HEADING.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    return tuple(
        Entry(
            match["name"],
            None if match["status"] is None else int(match["status"]),
            " ".join(match["summary"].split()),
            text[match.end() : end].strip(),
        )
        for match, end in zip(found, ends, strict=True)
    )


def explained(wanted: str, entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries for an error name in any case, or for an exit status; empty if there are none."""
    if wanted.isdecimal():
        return [entry for entry in entries if entry.status is not None and str(entry.status) == wanted]
    return [entry for entry in entries if entry.name.lower() == wanted.lower()]
