"""The clock that waiting and progress go by, in seconds; tests bring their own."""

from collections.abc import Callable

Clock = Callable[[], float]
