"""What the agent asks of the instance that it looks after, and of the group that this belongs to."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Interruption:
    """The spot instance is taken back: ``action`` is terminate, stop or hibernate, ``time`` when it will be done."""

    action: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Membership:
    """How an instance belongs to its group."""

    group: str
    protected: bool


class Metadata(Protocol):
    """What an instance is told about itself; `soci_pipeline.aws.instance_metadata` has EC2's."""

    def interruption(self) -> Interruption | None: ...

    def taken_back(self) -> bool: ...


class Instance(Protocol):
    """An instance as a member of its group; `soci_pipeline.aws.auto_scaling` has AWS's."""

    def membership(self) -> Membership | None: ...

    def protect(self, group: str, *, protected: bool) -> None: ...
