"""The clock for waiting and progress, in seconds; tests pass their own."""

from collections.abc import Callable

Clock = Callable[[], float]
