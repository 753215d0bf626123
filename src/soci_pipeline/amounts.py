"""Amounts as people read them, in an answer, a log or a page."""

_MIB = 1 << 20


def counted(number: int, one: str, many: str | None = None) -> str:
    """``1 tag``, ``2 tags``; ``many`` where it is more than an s behind ``one``."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def sized(count: int) -> str:
    """A number of bytes: ``512 B``, ``1.5 KiB``, ``3.0 MiB``."""
    if count < 1024:
        return f"{count} B"
    return f"{count / _MIB:.1f} MiB" if count >= _MIB else f"{count / 1024:.1f} KiB"
