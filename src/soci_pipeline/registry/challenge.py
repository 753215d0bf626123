"""``WWW-Authenticate``: reading what a registry asks for (RFC 9110 section 11, distribution's token specification)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - the grammar's name for a word, not a secret
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*(?:,|\Z)')
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?:\s+|\s*,|\Z)")
_MAX_HEADER = 8 << 10


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme (in lower case) with its parameters (names in lower case)."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Every challenge of one header value, in order; what cannot be read ends the list."""
    text, found = header[:_MAX_HEADER], []
    position = 0
    while scheme := _SCHEME.match(text, position):
        position = scheme.end()
        parameters: dict[str, str] = {}
        while pair := _PARAMETER.match(text, position):
            quoted = pair.group(2)
            value = pair.group(3) if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(pair.group(1).lower(), value)
            position = pair.end()
        found.append(Challenge(scheme.group(1).lower(), parameters))
    return tuple(found)
