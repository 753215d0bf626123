"""Read a program's output while it runs, to its end, and remove secrets from it."""

import contextlib
import fcntl
import io
import os
import select
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import IO, Any

from soci_pipeline.log import logger

_SECRETS: ContextVar[tuple[str, ...]] = ContextVar("_SECRETS", default=())
# Shorter lines of a secret would match ordinary output.
_SHORTEST_SECRET = 4
_CONCEALED = "***"
# For the last output of processes that a program has left running.
_LAST_WORDS_SECONDS = 1.0
_INT_BYTES = 4


@contextlib.contextmanager
def concealing(secrets: Iterable[bytes]) -> Iterator[None]:
    """Replace these secrets in the output of programs that run in the block: in logs, results and errors.

    A build step can print the secrets that it receives. Every line of a secret is replaced where it appears literally:
    not where a program has transformed it, and no line shorter than four characters.
    """
    lines = {line.strip() for secret in secrets for line in secret.decode(errors="replace").splitlines()}
    found = sorted((line for line in lines if len(line) >= _SHORTEST_SECRET), key=len, reverse=True)
    token = _SECRETS.set((*_SECRETS.get(), *found))
    try:
        yield
    finally:
        _SECRETS.reset(token)


def seconds_until(deadline: float | None) -> float | None:
    """Return the seconds until a time of the monotonic clock, at least 0; None for no deadline."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


class Collector:
    """The lines of an output, or the last ``keep`` of them; discards all if there are more than ``limit`` bytes."""

    def __init__(self, *, keep: int | None, limit: int | None = None) -> None:
        self._lines: deque[str] = deque(maxlen=keep)
        self._received = 0
        self.limit = limit
        self.is_full = False

    def accepts(self, raw: bytes) -> bool:
        """Count the bytes read, and return whether they are within the limit."""
        self._received += len(raw)
        if self.limit is not None and self._received > self.limit:
            self.is_full = True
            self._lines.clear()
        return not self.is_full

    def add(self, line: str) -> None:
        self._lines.append(line)

    def text(self) -> str:
        return "".join(self._lines)

    def tail(self, count: int) -> str:
        return "".join(list(self._lines)[-count:])


def reporter(*, stream: bool) -> Callable[[str], None]:
    # Threads do not inherit the context, so the logger is looked up here.
    sink = logger()

    def report(line: str) -> None:
        if stream and line.strip():
            sink.info("%s", line.rstrip())

    return report


class _Pipe(io.RawIOBase):
    """A pipe that ends when all writers have closed it, or with its current content once ``enough`` is signalled.

    A program that has ended may have left another one that keeps the pipe open and even continues to print.
    """

    def __init__(self, pipe: IO[bytes], enough: int) -> None:
        self._pipe = pipe.fileno()
        self._enough = enough
        self._left: int | None = None
        self._poller = select.poll()
        self._poller.register(self._pipe, select.POLLIN)
        self._poller.register(enough, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left is None and any(file == self._enough for file, _ in self._poller.poll()):
            self._left = self._waiting()
        if self._left is None:
            return os.readv(self._pipe, [buffer])
        if self._left == 0:
            return 0
        count = os.readv(self._pipe, [memoryview(buffer)[: self._left]])
        self._left -= count
        return count

    def _waiting(self) -> int:
        """Return how many bytes are in the pipe now."""
        answer = fcntl.ioctl(self._pipe, termios.FIONREAD, bytes(_INT_BYTES))
        return int.from_bytes(answer, sys.byteorder)


@contextlib.contextmanager
def reading(pipe: IO[bytes] | None, collector: Collector, report: Callable[[str], None]) -> Iterator[threading.Thread]:
    """Read a pipe in a thread; after the block, read its remaining content and close it."""
    if pipe is None:
        raise ValueError("the program was started without pipes")
    secrets = _SECRETS.get()  # threads do not inherit the context
    enough = os.eventfd(0)

    def read() -> None:
        source = io.BufferedReader(_Pipe(pipe, enough))
        # With a limit, no more than that is read of a line; a line that is cut is discarded, so no secret is split.
        at_once = -1 if collector.limit is None else collector.limit + 1
        while raw := source.readline(at_once):
            if not collector.accepts(raw):
                continue
            line = raw.decode(errors="replace")
            for secret in secrets:
                line = line.replace(secret, _CONCEALED)
            collector.add(line)
            report(line)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        os.eventfd_write(enough, 1)
        thread.join()
        os.close(enough)
        pipe.close()


def await_last_words(readers: Iterable[threading.Thread], deadline: float | None) -> None:
    until = time.monotonic() + _LAST_WORDS_SECONDS
    for reader in readers:
        reader.join(seconds_until(until if deadline is None else min(until, deadline)))
