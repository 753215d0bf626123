"""Background threads that call a function repeatedly until they are stopped."""

import logging
import threading
from collections.abc import Callable

from soci_pipeline.retry import delay_s
from soci_pipeline.webhook.errors import OutboxUnavailable
from soci_pipeline.webhook.json_logs import log


class Loop:
    """A thread that calls ``step`` repeatedly; ``step`` returns the seconds to wait until the next call.

    `wake` ends a wait early, `stop` ends the thread. Unexpected errors are logged and ``step`` is retried: if the
    thread ended, events would pile up unnoticed.
    """

    def __init__(self, name: str, step: Callable[[], float]) -> None:
        self.name = name
        self._step = step
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """End the current wait, so that ``step`` is called at once."""
        self._wake.set()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Stop the thread after the current step, and wait up to ``timeout_s`` for it."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                wait = self._step()
                failures = 0
            except OutboxUnavailable as error:
                failures += 1
                wait = delay_s(failures)
                log(error.reason, level=logging.ERROR, thread=self.name)
            except Exception:
                failures += 1
                wait = delay_s(failures, first_s=1.0)
                logging.getLogger("soci_pipeline").exception("%s: unexpected error", self.name)
            self._wake.wait(wait)
            self._wake.clear()
