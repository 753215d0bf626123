"""A queue in memory and an instance metadata service on loopback, for what raises and lowers capacity."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

from soci_pipeline.capacity.policy import Demand

INSTANCE = "i-0123456789abcdef0"


@dataclass
class MemoryQueue:
    """What a Prefect server does for the simulation, without one."""

    waiting: dict[str, list[str]] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)
    _names: Iterator[int] = field(default_factory=count)

    def demand(self, pool: str) -> Demand:
        running = sum(each == pool for each in self.running.values())
        return Demand(waiting=len(self.waiting.get(pool, [])), running=running)

    def submit(self, pool: str) -> str:
        run = f"run-{next(self._names)}"
        self.waiting.setdefault(pool, []).append(run)
        return run

    def take(self, pool: str, limit: int) -> Sequence[str]:
        queue = self.waiting.get(pool, [])
        taken, self.waiting[pool] = queue[:limit], queue[limit:]
        self.running |= dict.fromkeys(taken, pool)
        return taken

    def finish(self, run: str) -> None:
        del self.running[run]


class MetadataService(ThreadingHTTPServer):
    """IMDSv2 as EC2 has it: nothing without a token, 404 for what is not there. Tests change ``answers``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, str] = {"instance-id": INSTANCE}
        self.tokens: list[str] = []
        self.broken: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def interrupt(self, action: str = "terminate") -> None:
        """Announce that the spot instance is taken back."""
        self.answers["spot/instance-action"] = json.dumps({"action": action, "time": "2026-11-26T10:00:00Z"})


class _Handler(BaseHTTPRequestHandler):
    server: MetadataService

    def do_PUT(self) -> None:
        lifetime = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        if self.path != "/latest/api/token" or lifetime is None:
            return self._answer(400, "")
        self.server.tokens.append(f"token-{len(self.server.tokens)}")
        return self._answer(200, self.server.tokens[-1])

    def do_GET(self) -> None:
        if self.server.broken is not None:
            return self._answer(self.server.broken, "")
        if not self.server.tokens or self.headers.get("X-aws-ec2-metadata-token") != self.server.tokens[-1]:
            return self._answer(401, "")
        found = self.server.answers.get(self.path.removeprefix("/latest/meta-data/"))
        return self._answer(404, "") if found is None else self._answer(200, found)

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""


@contextmanager
def metadata_service() -> Iterator[MetadataService]:
    """The service on a free port of the loopback interface."""
    with MetadataService() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
