"""The modules whose tests are tried, the tests that cover them, and the mutants that no test can or should notice."""

from dataclasses import dataclass
from typing import Final


def _outbox(module: str, *more: str) -> tuple[str, ...]:
    """The tests of a module of the outbox first, since they notice most; then those of its siblings."""
    siblings = ("rows", "retention", "statuses", "dispatching", "events", "schema", "file")
    names = dict.fromkeys((module, *siblings))
    return (*(f"webhook/outbox/test_{name}" for name in names), *more)


_TRANSPORT = tuple(
    f"registry/test_{name}"
    for name in (
        "network_errors",
        "permissions",
        "base_challenge",
        "transport",
        "client",
        "connection",
        "manifests",
        "authorizer",
        "token_answers",
    )
)

MODULES: Final[dict[str, tuple[str, ...]]] = {
    "soci/tar/stream": ("soci/tar/test_stream", "soci/ztoc/test_bounds"),
    "soci/ztoc/writer": ("soci/ztoc/test_writer", "soci/ztoc/test_known_answers"),
    "publish/join": ("publish/test_join",),
    "publish/tags": ("publish/test_tags",),
    "registry/transport": _TRANSPORT,
    "webhook/outbox/dispatching": _outbox("dispatching"),
    "webhook/outbox/events": _outbox("events"),
    "webhook/outbox/file": _outbox("file"),
    "webhook/outbox/retention": _outbox("retention", "webhook/test_retention"),
    "webhook/outbox/rows": _outbox("rows", "webhook/test_outcomes"),
    "webhook/outbox/statuses": _outbox("statuses"),
}
"""A module below ``src/soci_pipeline`` and the tests below ``tests/unit`` that cover it, the quickest first."""


@dataclass(frozen=True, slots=True)
class Explained:
    """A mutant that survives, as lines without their indentation, and why that is no gap in the tests."""

    module: str
    before: str
    after: str
    reason: str


EXPLAINED: Final[tuple[Explained, ...]] = (
    Explained(
        "soci/ztoc/writer",
        "(8 if size else 0) | (16 if mode else 0) | (32 if uid else 0) | (64 if gid else 0)",
        "(8 if size else 0) | (16 if mode else 0) ^ (32 if uid else 0) | (64 if gid else 0)",
        "the same: no bit is in both numbers",
    ),
    Explained(
        "soci/ztoc/writer",
        "if len(strings) > 1 << 16:",
        "if len(strings) >= 1 << 16:",
        "the bound of a cache: one string more or less changes no byte",
    ),
    Explained(
        "registry/transport",
        "if len(data) >= MAX_ERROR_BYTES or deadline.left <= 0:",
        "if len(data) >= MAX_ERROR_BYTES or deadline.left == 0:",
        "the same: `left` is never below 0",
    ),
    Explained(
        "registry/transport",
        "min(self.settings.read_timeout, deadline.left + 0.1),",
        "min(self.settings.read_timeout, deadline.left + 1.1),",
        "how far a read may go past the deadline is not promised; to measure it would make a test depend on the load",
    ),
    Explained(
        "registry/transport",
        "connect=min(self.settings.connect_timeout, deadline.left + 0.1),",
        "connect=min(self.settings.connect_timeout, deadline.left + 1.1),",
        "how far a connection may go past the deadline is not promised",
    ),
    Explained(
        "registry/transport",
        "took = time.monotonic() - started",
        "took = time.monotonic() + started",
        "only logged, for debugging",
    ),
    Explained(
        "registry/transport",
        'if url.scheme == "http" and url.host != self.base.host and not on_this_machine:',
        'if url.scheme <= "http" and url.host != self.base.host and not on_this_machine:',
        "the same: the scheme is http or https by then",
    ),
    Explained(
        "registry/transport",
        'if call.body is not None or method in ("POST", "PUT", "PATCH"):',
        'if call.body is not None and method in ("POST", "PUT", "PATCH"):',
        "the same: only these methods have a body, and httpx itself gives one without a body the length 0",
    ),
    Explained(
        "webhook/outbox/file",
        "def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic, busy_timeout_s: float = 5.0)"
        " -> None:",
        "def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic, busy_timeout_s: float = 6.0)"
        " -> None:",
        "how long a writer waits for another by default is a matter of judgement",
    ),
    Explained(
        "webhook/outbox/file",
        "path.touch(mode=0o600)",
        "path.touch(mode= 385)",
        "the next line sets the mode; the file is empty until then",
    ),
    Explained(
        "webhook/outbox/retention",
        "_DELETED_AT_ONCE = 1000",
        "_DELETED_AT_ONCE = 1001",
        "how many rows one transaction deletes is a matter of judgement; the cleaner comes back until none is left",
    ),
    Explained(
        "webhook/outbox/file",
        'found = self._select("key = ?", 1, key)',
        'found = self._select("key = ?", 2, key)',
        "the same: a key is unique",
    ),
    Explained(
        "webhook/outbox/statuses",
        "def unfinished(self, limit: int = 200, *, after: int = 0) -> list[OutboxRun]:",
        "def unfinished(self, limit: int = 199, *, after: int = 0) -> list[OutboxRun]:",
        "how many runs one look finds by default is a matter of judgement; the next look finds the others",
    ),
    Explained(
        "webhook/outbox/statuses",
        "def unfinished(self, limit: int = 200, *, after: int = 0) -> list[OutboxRun]:",
        "def unfinished(self, limit: int = 201, *, after: int = 0) -> list[OutboxRun]:",
        "how many runs one look finds by default is a matter of judgement; the next look finds the others",
    ),
    Explained(
        "webhook/outbox/statuses",
        "def unfinished(self, limit: int = 200, *, after: int = 0) -> list[OutboxRun]:",
        "def unfinished(self, limit: int = 200, *, after: int = -1) -> list[OutboxRun]:",
        "the same: the first id is 1",
    ),
    Explained(
        "webhook/outbox/statuses",
        "def ended(self, limit: int, *, after: int = 0, within_s: float) -> list[OutboxRun]:",
        "def ended(self, limit: int, *, after: int = -1, within_s: float) -> list[OutboxRun]:",
        "the same: the first id is 1",
    ),
    Explained(
        "webhook/outbox/statuses",
        "def to_report(self, limit: int = 50) -> list[OutboxRun]:",
        "def to_report(self, limit: int = 49) -> list[OutboxRun]:",
        "how many runs one look finds by default is a matter of judgement; the next look finds the others",
    ),
    Explained(
        "webhook/outbox/statuses",
        "def to_report(self, limit: int = 50) -> list[OutboxRun]:",
        "def to_report(self, limit: int = 51) -> list[OutboxRun]:",
        "how many runs one look finds by default is a matter of judgement; the next look finds the others",
    ),
    Explained(
        "webhook/outbox/events",
        "_PROBE_BYTES = 64 << 10",
        "_PROBE_BYTES = 65 << 10",
        "how much room a usual event needs is a matter of judgement",
    ),
    Explained(
        "webhook/outbox/events",
        "_unstored_bytes = 0",
        "_unstored_bytes = 1",
        "the same: the probe has at least 64 KiB",
    ),
    Explained(
        "webhook/outbox/events",
        "self._unstored_bytes = 0",
        "self._unstored_bytes = 1",
        "the same: the probe has at least 64 KiB",
    ),
    Explained(
        "webhook/outbox/events",
        "for run, text in zip(runs, parameters, strict=True):",
        "for run, text in zip(runs, parameters, strict=False):",
        "the same: there is one text for each run",
    ),
    Explained(
        "webhook/outbox/events",
        'return bool(newer["n"] == 0)',
        'return bool(newer["n"] <= 0)',
        "the same: no count is below 0",
    ),
    Explained(
        "webhook/outbox/file",
        "def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic, busy_timeout_s: float = 5.0)"
        " -> None:",
        "def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic, busy_timeout_s: float = 4.0)"
        " -> None:",
        "how long a writer waits for another by default is a matter of judgement",
    ),
    Explained(
        "webhook/outbox/file",
        "path.touch(mode=0o600)",
        "path.touch(mode= 383)",
        "the next line sets the mode; the file is empty until then",
    ),
    Explained(
        "webhook/outbox/file",
        "return found[0] if found else None",
        "return found[ -1] if found else None",
        "the same: a key is unique",
    ),
    Explained(
        "webhook/outbox/rows",
        'FINAL_OUTCOMES = FINAL_STATES | {"NOT_STARTED", "UNKNOWN"}',
        'FINAL_OUTCOMES = FINAL_STATES ^ {"NOT_STARTED", "UNKNOWN"}',
        "the same: no word is in both sets",
    ),
    Explained(
        "webhook/outbox/retention",
        "_DELETED_AT_ONCE = 1000",
        "_DELETED_AT_ONCE = 999",
        "how many rows one transaction deletes is a matter of judgement; the cleaner comes back until none is left",
    ),
)
