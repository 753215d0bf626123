"""Process one event from its arrival until it is stored, independent of the HTTP server and of queues.

The order is fixed: rate limit, verify the signature, parse, match the rules, validate the parameters, store. Nothing of
an event is parsed before its signature is verified, and success is returned only after it is on disk.
"""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from soci_pipeline.errors import InvalidInput
from soci_pipeline.webhook.configuration import Configuration, Source
from soci_pipeline.webhook.errors import CloneUrlRefused, EventRefused, OutboxUnavailable, SignatureRefused
from soci_pipeline.webhook.events import Event, Ignored, PushEvent
from soci_pipeline.webhook.json_logs import log
from soci_pipeline.webhook.limits import RateLimit
from soci_pipeline.webhook.metrics import Metrics
from soci_pipeline.webhook.outbox import Outbox, StatusTarget
from soci_pipeline.webhook.rules import mismatch_reasons, plan
from soci_pipeline.webhook.sources.source import HttpSource, StatusSource


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request: HTTP status, JSON object and headers."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


class Receiver:
    """Receives events from every source; thread-safe. ``on_stored`` is called after each new event."""

    def __init__(
        self,
        configuration: Configuration,
        outbox: Outbox,
        metrics: Metrics,
        *,
        on_stored: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.configuration = configuration
        self._outbox = outbox
        self._metrics = metrics
        self._on_stored = on_stored
        self._clock = clock
        self._requests = RateLimit(configuration.limits.requests_per_minute)
        self._events = RateLimit(configuration.limits.events_per_minute)

    def admit(self, name: str, client: str) -> Answer | None:
        """Check the source and its rate limit before the body is read; return None, or the answer that rejects it."""
        source = self.configuration.source(name)
        if not isinstance(source, HttpSource):
            return self._end("unknown", 404, "no-such-source", "Unknown source.")
        wait = self._requests.wait_s((name, client))
        return None if wait == 0 else self._rate_limited(name, wait)

    def receive(self, name: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Verify, parse and store the body of an admitted request."""
        source = self.configuration.source(name)
        if not isinstance(source, HttpSource):
            return self._end("unknown", 404, "no-such-source", "Unknown source.")
        try:
            identity = source.verify(headers, body, self._clock())
        except SignatureRefused as error:
            log("refused: " + error.reason, level=logging.WARNING, source=name)
            return self._end(name, 401, "unauthorized", "The credentials are missing or wrong.")
        except InvalidInput as error:
            log(error.reason, level=logging.ERROR, source=name)
            return self._end(
                name, 503, "not-configured", "The secret of the source is currently missing.", retry_after_s=30
            )
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return self._end(name, 415, "unsupported-media-type", "Events must be application/json.")
        try:
            return self.accept(source, identity, source.parse(headers, body))
        except EventRefused as error:
            if isinstance(error, CloneUrlRefused) and (ignored := self._named_by_no_rule(name, error.event)):
                return ignored
            log("refused: " + error.reason, level=logging.WARNING, source=name)
            return self._end(name, 422, "refused", error.reason)
        except OutboxUnavailable as error:
            log(error.reason, level=logging.ERROR, source=name)
            return self._end(name, 503, "not-stored", "The event could not be stored.", retry_after_s=30)

    def accept(self, source: Source, identity: bytes, event: Event | Ignored) -> Answer:
        """Store the runs that a verified event starts; raise `EventRefused` or `OutboxUnavailable`."""
        name = source.name
        if isinstance(event, Ignored):
            return self._ignored(name, event.reason)
        try:
            planned = plan(self.configuration, name, event)
        except EventRefused:
            if ignored := self._named_by_no_rule(name, event):
                return ignored
            raise
        if not planned.runs:
            return self._ignored(name, "no rule matches", rules=planned.skipped)
        digest = hashlib.sha256(name.encode() + b"\0" + identity).digest()
        # A queue redelivers automatically. A redelivery over HTTP is deliberate, so it also restarts failed runs.
        by_http = isinstance(source, HttpSource)
        # Replays and events that start nothing must not use up the rate limit of new events. A queue is polled at the
        # receiver's pace, so it needs no limit.
        if by_http and self._outbox.starts(digest, planned.runs):
            wait = self._events.wait_s(name)
            if wait > 0:
                return self._rate_limited(name, wait)
        target = _target(source, event)
        stored = self._outbox.store(digest, name, event.subject, planned.runs, target=target, again=by_http)
        outcome = "stored" if stored.new else "duplicate"
        self._metrics.count("soci_webhook_requests_total", source=name, result=outcome)
        rules = [run.rule for run in planned.runs]
        log(f"event {outcome}", source=name, subject=event.subject, event=digest.hex(), rules=rules)
        if stored.new:
            self._on_stored()
        runs = [{"rule": run.rule, "deployment": run.deployment, "key": key}
                for run, key in zip(planned.runs, stored.keys, strict=True)]  # fmt: skip
        return Answer(202, {"status": outcome, "event": digest.hex(), "runs": runs})

    def _named_by_no_rule(self, name: str, event: Event) -> Answer | None:
        """Return the answer for an event that no rule matches, valid or not; None if a rule matches it."""
        reasons = mismatch_reasons(self.configuration, name, event)
        return None if reasons is None else self._ignored(name, "no rule matches", rules=reasons)

    def refuse_body(
        self, name: str, status: int, code: str, text: str, *, retry_after_s: float | None = None
    ) -> Answer:
        """Return the answer for a body that is too large, too slow, incomplete, or does not fit in memory."""
        return self._end(name, status, code, text, retry_after_s=retry_after_s)

    def _ignored(self, name: str, reason: str, *, rules: dict[str, str] | None = None) -> Answer:
        self._metrics.count("soci_webhook_requests_total", source=name, result="ignored")
        log("event ignored: " + reason, source=name, rules=rules)
        return Answer(202, {"status": "ignored", "reason": reason} | ({"rules": rules} if rules else {}))

    def _rate_limited(self, name: str, wait_s: float) -> Answer:
        return self._end(name, 429, "too-many", "Too many requests.", retry_after_s=wait_s)

    def _end(self, name: str, status: int, code: str, text: str, *, retry_after_s: float | None = None) -> Answer:
        self._metrics.count("soci_webhook_requests_total", source=name, result=code)
        headers = {} if retry_after_s is None else {"Retry-After": str(max(1, math.ceil(retry_after_s)))}
        if status == 401:
            headers["WWW-Authenticate"] = "Signature"
        return Answer(status, {"error": code, "detail": text}, headers)


def _target(source: Source, event: Event) -> StatusTarget | None:
    if not isinstance(event, PushEvent) or not isinstance(source, StatusSource) or source.status is None:
        return None
    return StatusTarget(project=event.project or event.repository, commit=event.commit)
