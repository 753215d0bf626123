"""HTTP/1.1 with a bound that uvicorn leaves out: how long the head of a request may take.

Without it a sender that opens connections and says nothing, or a header now and then, holds all the places there are.
"""

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle


class BoundedHead(H11Protocol):
    """uvicorn's protocol; a connection whose next request has not a whole head within ``head_seconds`` is closed."""

    head_seconds: ClassVar[float] = 10.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Take what came, and look whether it was a head."""
        super().data_received(data)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        if not self._is_idle:
            self._stop_waiting()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self._is_idle:
            self.transport.close()

    @property
    def _is_idle(self) -> bool:
        """Whether no request is under way on this connection."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete


def bounded_head(seconds: float) -> type[BoundedHead]:
    """The protocol with a bound of its own."""
    return type("BoundedHead", (BoundedHead,), {"head_seconds": seconds})
