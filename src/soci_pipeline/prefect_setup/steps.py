"""The steps of a set-up: each describes its changes before it makes them."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Note:
    """The result for one thing, for example of kind ``work_pools``."""

    kind: str
    name: str
    result: str


@dataclass(frozen=True, slots=True)
class Step:
    """One requirement: the results to report, and the calls that change the server; none if unchanged."""

    notes: tuple[Note, ...]
    changes: tuple[Callable[[], None], ...] = ()
