"""The whole receiver: the outbox, its threads and the HTTP server, started and stopped together."""

import contextlib
import fcntl
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from soci_pipeline.errors import InvalidInput, StackError
from soci_pipeline.http_server.connections import Connections
from soci_pipeline.http_server.protocol import Limits
from soci_pipeline.http_server.server import HttpServer, listen, tls_context
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.webhook.app import create_app
from soci_pipeline.webhook.configuration import Configuration, PrefectSettings
from soci_pipeline.webhook.dispatch import Dispatcher
from soci_pipeline.webhook.errors import OutboxUnavailable
from soci_pipeline.webhook.forge import Forge
from soci_pipeline.webhook.json_logs import log
from soci_pipeline.webhook.loop import Loop
from soci_pipeline.webhook.metrics import Labels, Metrics
from soci_pipeline.webhook.outbox import Outbox
from soci_pipeline.webhook.outcomes import OutcomeWatcher
from soci_pipeline.webhook.proxies import ForwardedSender, TrustedProxies
from soci_pipeline.webhook.receiver import Receiver
from soci_pipeline.webhook.retention import Cleaner
from soci_pipeline.webhook.secret_values import MIN_KEY_BYTES
from soci_pipeline.webhook.sources.eventbridge import QueueSource
from soci_pipeline.webhook.sources.source import HttpSource, StatusSource
from soci_pipeline.webhook.sources.standard import key_bytes

_GRACE_S = 15
_KEEP_ALIVE_S = 10
_MAX_CONNECTIONS = 512
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_FREE_ADDRESS = (
    "Read its log for the cause. Under `listen` in the configuration, use an address of this machine and a free "
    "port; 0 chooses one."
)


class Service:
    """Context manager that stores, dispatches and watches events inside the block. `app` is the ASGI application."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.metrics = Metrics()
        self._stack = contextlib.ExitStack()
        self._loops: list[Loop] = []

    def __enter__(self) -> "Service":
        check_secrets(self.configuration)
        with contextlib.ExitStack() as stack:
            settings = self.configuration.prefect
            # Lock before opening, which migrates: an older receiver that is still running would write times that the
            # new schema misreads.
            stack.enter_context(_outbox_lock(self.configuration.outbox))
            self.outbox = stack.enter_context(Outbox(self.configuration.outbox))
            reclaimed = self.outbox.reclaim()
            if reclaimed:
                log("runs of the previous receiver are pending again", runs=reclaimed)
            prefect = stack.enter_context(_prefect(settings))
            forges = {each.name: stack.enter_context(forge) for each, forge in _forges(self.configuration)}
            dispatcher = Dispatcher(self.outbox, prefect, self.metrics, give_up_after_s=settings.give_up_after_s)
            watcher = OutcomeWatcher(
                self.outbox,
                prefect,
                self.metrics,
                forges=forges,
                every_s=settings.poll_outcomes_every_s,
                ui_url=str(settings.ui_url) if settings.ui_url else None,
                watch_ended_for_s=settings.watch_ended_days * 24 * 3600,
            )
            cleaner = Cleaner(self.outbox, self.configuration)

            def watch() -> float:
                wait = watcher.step()
                cleaner.step()
                return wait

            dispatch = Loop("dispatch", dispatcher.step)
            self.receiver = Receiver(self.configuration, self.outbox, self.metrics, on_stored=dispatch.wake)
            self._loops = [dispatch, Loop("outcomes", watch), *self._queue_loops()]
            for loop in self._loops:
                loop.start()
                stack.callback(loop.stop)
            self.app = create_app(self.receiver, health=self.health, exposition=self.exposition)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def health(self) -> dict[str, Any]:
        """Return the health: ``ok`` if the outbox is writable, every source has a secret and all threads are alive."""
        threads = {loop.name: loop.alive for loop in self._loops}
        try:
            self.outbox.check_writable()
            counts = self.outbox.counts()
        except OutboxUnavailable as error:
            log(error.reason, level=logging.ERROR)
            return {"ok": False, "threads": threads, "faults": ["cannot write to the outbox"]}
        faults = [f"the source {name} has no secret" for name in _without_secret(self.configuration)]
        state = {"threads": threads, "pending": counts["pending"] + counts["dispatching"]}
        ok = all(threads.values()) and not faults
        return {"ok": ok, **state} | ({"faults": faults} if faults else {})

    def exposition(self) -> str:
        """Return the metrics in the Prometheus text format."""
        runs: dict[Labels, float] = {}
        oldest: dict[Labels, float] = {}
        try:
            runs = {(state,): float(n) for state, n in self.outbox.counts().items()}
            oldest = {(): self.outbox.oldest_pending_s()}
        except OutboxUnavailable:
            log("cannot read the outbox", level=logging.ERROR)
        alive: dict[Labels, float] = {(loop.name,): float(loop.alive) for loop in self._loops}
        return self.metrics.text(
            {"soci_webhook_runs": runs, "soci_webhook_oldest_pending_seconds": oldest, "soci_webhook_up": alive}
        )

    def _queue_loops(self) -> list[Loop]:
        queues = [each for each in self.configuration.sources if isinstance(each, QueueSource)]
        if not queues:
            return []
        # boto3 is an optional extra that only queues need.
        from soci_pipeline.webhook.queue import QueuePoller

        return [Loop(f"queue-{each.name}", QueuePoller(each, self.receiver, self.metrics).step) for each in queues]


def _prefect(settings: PrefectSettings) -> PrefectApi:
    # No retries in the client, since the outbox retries: waiting here would block the other runs.
    return PrefectApi(
        str(settings.api_url), authorization=settings.authorization, timeout_s=settings.timeout_s, deadline_s=0
    )


@contextlib.contextmanager
def _outbox_lock(outbox: Path) -> Iterator[None]:
    """Hold the lock of the outbox until the block or process ends; raise `StackError` if another receiver has it.

    Two receivers would reclaim each other's runs as left over from a killed one.
    """
    try:
        outbox.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(outbox.with_name(f"{outbox.name}.lock"), os.O_WRONLY | os.O_CREAT, 0o600)
    except OSError as error:
        raise OutboxUnavailable(f"cannot lock the outbox {outbox}: {error.strerror}") from error
    with os.fdopen(descriptor, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StackError(
                f"another receiver uses the outbox {outbox}",
                advice="Stop it first, or use another outbox in the configuration.",
            ) from error
        yield


def check_secrets(configuration: Configuration) -> None:
    """Read every secret once; raise `InvalidInput` if one is missing, malformed, or too short to be a key."""
    for source in configuration.sources:
        for secret in source.keys if isinstance(source, HttpSource) else ():
            value = secret.read()
            try:
                length = len(key_bytes(value))
            except ValueError as error:
                raise InvalidInput(f"source {source.name}: {secret}: {error}") from error
            if length < MIN_KEY_BYTES:
                raise InvalidInput(
                    f"source {source.name}: {secret} is {length} bytes long; at least {MIN_KEY_BYTES} are required",
                    advice="Generate one with `openssl rand -hex 32`.",
                )
        if isinstance(source, StatusSource) and source.status is not None:
            source.status.token.read_text()
    configuration.prefect.authorization()


def _without_secret(configuration: Configuration) -> Iterator[str]:
    """Yield the names of sources without a readable secret, whose events are answered with 503."""
    for source in configuration.sources:
        if isinstance(source, HttpSource) and not any(secret.is_readable for secret in source.keys):
            yield source.name


def serve(configuration: Configuration) -> None:
    """Run until SIGTERM or SIGINT, then finish open requests and raise the signal again."""
    with Service(configuration) as service, _listener(configuration) as listener:
        host, port = listener.getsockname()[:2]
        received = _server(service, listener).run(on_ready=lambda: log("receiver listens", host=host, port=port))
    if received is not None:
        signal.raise_signal(received)


@contextlib.contextmanager
def serving(configuration: Configuration) -> Iterator[tuple[str, Service]]:
    """Run the receiver in threads of this process; yield its URL (``http://host:port``) and the service."""
    with Service(configuration) as service:
        try:
            listener = _listener(configuration)
        except StackError as error:
            raise StackError(f"the receiver did not start: {error.reason}", advice=error.advice) from error
        with listener, _server(service, listener).running("receiver"):
            yield f"http://{configuration.listen.host}:{listener.getsockname()[1]}", service


def _listener(configuration: Configuration) -> socket.socket:
    host, port = configuration.listen.host, configuration.listen.port
    try:
        return listen(host, port)
    except StackError as error:
        raise StackError(
            f"the receiver cannot listen on {host}:{port}: {error.reason}", advice=_FREE_ADDRESS
        ) from error


def _server(service: Service, listener: socket.socket) -> HttpServer:
    settings, limits = service.configuration.listen, service.configuration.limits
    proxies = TrustedProxies(settings.trusted_proxies)
    connections = Connections(
        limits.connections_per_address, most=_MAX_CONNECTIONS, unbounded=proxies.__contains__, exact=True
    )
    return HttpServer(
        ForwardedSender(service.app, proxies) if settings.trusted_proxies else service.app,
        listener,
        connections,
        Limits(head_s=limits.body_seconds, read_s=limits.body_seconds, keep_alive_s=_KEEP_ALIVE_S, busy=_BUSY),
        tls=tls_context(settings.tls_cert, settings.tls_key),
        grace_s=_GRACE_S,
    )


def _forges(configuration: Configuration) -> Iterator[tuple[StatusSource, Forge]]:
    for source in configuration.sources:
        if isinstance(source, StatusSource) and source.status is not None:
            yield source, Forge(source, source.status)
