"""Validate cron expressions and time zones as strictly as Prefect's server does, without Prefect."""

import difflib
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    first: int
    last: int
    names: Sequence[str] = ()

    def values(self, text: str) -> set[int]:
        """Return the values that a field of an expression matches; raise ValueError."""
        return {value for part in text.split(",") for value in self._part(part)}

    def _part(self, part: str) -> range:
        base, slash, step = part.partition("/")
        stride = self._number(step, 1, self.last) if slash else 1
        if base == "*":
            return range(self.first, self.last + 1, stride)
        start, dash, end = base.partition("-")
        first = self._value(start)
        last = self._value(end) if dash else self.last if slash else first
        if last < first:
            raise ValueError(f"{self.name}: {base!r} ends before it starts")
        return range(first, last + 1, stride)

    def _value(self, text: str) -> int:
        if text.lower() in self.names:
            return list(self.names).index(text.lower()) + self.first
        return self._number(text, self.first, self.last)

    def _number(self, text: str, first: int, last: int) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 3 and first <= int(text) <= last):
            raise ValueError(f"{self.name}: {text[:40]!r} is not an integer from {first} to {last}")
        return int(text)


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, _DAYS),
)


def check_cron(text: str) -> str:
    """Normalise a cron expression of five fields to single spaces; raise ValueError that names the invalid field."""
    fields = text.split()
    if len(fields) != len(_FIELDS) or not text.isascii():
        raise ValueError(
            f"{text[:100]!r} is not a cron expression: it has {len(fields)} fields instead of minute, hour, day of "
            "the month, month and day of the week, for example '17 3 * * *'"
        )
    try:
        _, _, days, months, _ = (field.values(part) for field, part in zip(_FIELDS, fields, strict=True))
    except ValueError as error:
        raise ValueError(f"{text[:100]!r} is not a cron expression: {error}") from error
    if fields[4] == "*" and min(days) > max(_LONGEST[month - 1] for month in months):
        raise ValueError(f"{text[:100]!r} never matches: no such month has a day {min(days)}")
    return " ".join(fields)


def check_timezone(name: str) -> str:
    """Validate the name of a time zone; raise ValueError that suggests similar names."""
    known = zoneinfo.available_timezones()
    if name in known or (not known and name == "UTC"):
        return name
    by_lower_case = {each.lower(): each for each in known}
    similar = difflib.get_close_matches(name.lower()[:100], by_lower_case, n=1)
    suggestion = f"; did you mean {by_lower_case[similar[0]]!r}?" if similar else ", such as Europe/Berlin or UTC"
    raise ValueError(f"{name[:100]!r} is not an IANA time zone{suggestion}")
