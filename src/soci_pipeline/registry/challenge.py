"""Parser for ``WWW-Authenticate`` challenges (RFC 9110 section 11, distribution's token specification)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - the grammar's name for a word, not a secret
# Some servers write values unquoted or in single quotes, and separate parameters with semicolons or spaces.
_PARAMETER = re.compile(rf"""\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([^\s,;"']+))(?:\s*[,;]|(?=\s)|\Z)""")
_SEPARATORS = re.compile(r"[\s,;]*")
_SCHEME = re.compile(rf"({_TOKEN})(?:\s+|\s*,|\Z)")
_UNREADABLE = re.compile(r'(?:"[^"]*"|[^",])+')
_MAX_HEADER = 8 << 10


@dataclass(frozen=True, slots=True)
class Challenge:
    """One authentication scheme and its parameters; the scheme and the names are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Parse all challenges of one header value, in order; skip malformed parts up to the next comma."""
    text, found = header[:_MAX_HEADER], []
    position = _after_separators(text, 0)
    while position < len(text):
        scheme = _SCHEME.match(text, position)
        if scheme is None:
            position = _after_separators(text, _next_part(text, position))
            continue
        position = scheme.end()
        parameters: dict[str, str] = {}
        while pair := _PARAMETER.match(text, position):
            parameters.setdefault(pair.group(1).lower(), _value(pair))
            position = pair.end()
        found.append(Challenge(scheme.group(1).lower(), parameters))
        position = _after_separators(text, position)
    return tuple(found)


def _value(pair: re.Match[str]) -> str:
    _, escaped, single, bare = pair.groups()
    if escaped is not None:
        return re.sub(r"\\(.)", r"\1", escaped)
    return single if single is not None else bare


def _after_separators(text: str, position: int) -> int:
    separators = _SEPARATORS.match(text, position)
    return separators.end() if separators else position


def _next_part(text: str, position: int) -> int:
    unreadable = _UNREADABLE.match(text, position)
    return unreadable.end() if unreadable else position + 1
