"""Amounts as people read them, in an answer, a log or a page."""

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def counted(number: int, one: str, many: str | None = None) -> str:
    """``1 tag``, ``2 tags``; ``many`` where it is more than an s behind ``one``."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def sized(count: float) -> str:
    """A number of bytes: ``512 B``, ``1.5 KiB``, ``3.0 MiB``, and GiB and TiB."""
    if count < 1024:
        return f"{count:.0f} B"
    power = min(int(count).bit_length() - 1, 10 * len(_UNITS)) // 10
    return f"{count / (1 << 10 * power):.1f} {_UNITS[power - 1]}"
