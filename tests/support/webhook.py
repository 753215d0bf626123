"""Events, signatures, configurations and loopback servers for tests of the receiver."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import httpx
import yaml

from soci_pipeline.webhook.configuration import Configuration, load
from soci_pipeline.webhook.outbox import OutboxRun
from soci_pipeline.webhook.service import Service
from soci_pipeline.webhook.sources import github, standard
from tests.support.certificates import Pair

SECRET = b"an old secret of 32 characters.."
NEW_SECRET = b"a new secret of 32 characters..."
COMMIT = "c0ffee" + "0" * 34
ZERO = "0" * 40


def github_push(**changes: Any) -> dict[str, Any]:
    """Return a push event of GitHub, reduced to the relevant fields and some irrelevant ones."""
    push: dict[str, Any] = {
        "ref": "refs/heads/main",
        "before": "b" * 40,
        "after": COMMIT,
        "created": False,
        "deleted": False,
        "forced": False,
        "repository": {
            "id": 1,
            "full_name": "team/shop",
            "clone_url": "https://github.example/team/shop.git",
            "private": True,
        },
        "head_commit": {"id": COMMIT},
        "commits": [{"id": COMMIT, "added": [], "removed": [], "modified": ["app/main.py", "README.md"]}],
        "sender": {"login": "dev"},
    }
    return push | changes


def gitlab_push(**changes: Any) -> dict[str, Any]:
    """Return a push event of GitLab, reduced in the same way."""
    push: dict[str, Any] = {
        "object_kind": "push",
        "before": "b" * 40,
        "after": COMMIT,
        "ref": "refs/heads/main",
        "checkout_sha": COMMIT,
        "project": {
            "id": 15,
            "path_with_namespace": "group/sub/shop",
            "git_http_url": "https://gitlab.example/group/sub/shop.git",
        },
        "commits": [{"id": COMMIT, "added": ["app/x.py"], "modified": [], "removed": []}],
        "total_commits_count": 1,
    }
    return push | changes


def generic_push(**changes: Any) -> dict[str, Any]:
    """Return an event of a custom sender."""
    push: dict[str, Any] = {
        "kind": "push",
        "repository": "team/shop",
        "clone_url": "https://git.example/team/shop.git",
        "ref": "refs/heads/main",
        "commit": COMMIT,
    }
    return push | changes


def github_headers(body: bytes, *, secret: bytes = SECRET, event: str = "push", delivery: str = "1") -> dict[str, str]:
    """Return GitHub's headers for a body."""
    return {
        "content-type": "application/json",
        "x-github-event": event,
        "x-github-delivery": delivery,
        "x-hub-signature-256": github.sign(secret, body),
    }


def standard_headers(body: bytes, now: float, *, secret: bytes = SECRET, message_id: str = "msg_1") -> dict[str, str]:
    """Return the headers of the Standard Webhooks scheme."""
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": standard.sign(secret, message_id=message_id, timestamp=int(now), body=body),
    }


def rule(**changes: Any) -> dict[str, Any]:
    """Return a rule that publishes pushes to main of team/shop."""
    fields: dict[str, Any] = {
        "name": "shop",
        "sources": ["github"],
        "repositories": ["team/*"],
        "branches": ["main", "release/*"],
        "tags": ["v*"],
        "deployment": "publish-image/publish",
        "parameters": {
            "image": "registry.example/team/shop",
            "source": "${clone_url}",
            "ref": "${commit}",
            "tags": ["{short_sha}", "${slug}"],
        },
    }
    return fields | changes


def document(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a complete configuration with one GitHub source and two valid secrets, stored below ``folder``."""
    (folder / "old").write_bytes(SECRET + b"\n")
    (folder / "new").write_bytes(NEW_SECRET)
    fields: dict[str, Any] = {
        "outbox": str(folder / "outbox" / "events.sqlite3"),
        "prefect": {"api_url": "http://127.0.0.1:9/api", "poll_outcomes_every_s": 0.05},
        "listen": {"port": 0},
        "sources": [
            {
                "kind": "github",
                "name": "github",
                "secrets": [{"file": str(folder / "old")}, {"file": str(folder / "new")}],
            }
        ],
        "rules": [rule()],
    }
    return fields | changes


def configuration(folder: Path, **changes: Any) -> Configuration:
    """Load the same configuration from a file."""
    path = folder / "webhook.yaml"
    path.write_text(yaml.safe_dump(document(folder, **changes)))
    return load(path)


@dataclass
class Recorded:
    """One request to a loopback server."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class FakePrefect:
    """The part of Prefect's REST API that the receiver uses, with its idempotency; faults can be planned."""

    url: str = ""
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[Recorded] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)
    deployments: set[str] = field(default_factory=lambda: {"publish-image/publish", "index-image/index"})
    lose_answers: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    """Headers of the responses that are planned faults."""

    def answer(self, request: Recorded) -> tuple[int, Any, dict[str, str]]:
        """Return status, document and headers for a request; status -1 closes the connection without a response."""
        self.requests.append(request)
        if self.faults:
            status, text = self.faults.pop(0)
            return status, {"detail": text}, self.headers
        return *self._answer(request), {}

    def _answer(self, request: Recorded) -> tuple[int, Any]:
        if request.path.startswith("/api/deployments/name/"):
            name = request.path.removeprefix("/api/deployments/name/")
            known = name in self.deployments
            return (200, {"id": str(uuid5(NAMESPACE_URL, name))}) if known else (404, {"detail": "not found"})
        if request.path.endswith("/create_flow_run"):
            return self._create(request)
        if request.path == "/api/flow_runs/filter":
            wanted = request.body["flow_runs"]["id"]["any_"]
            return 200, [run for run in self.runs.values() if run["id"] in wanted]
        return 404, {"detail": "no such path"}

    def _create(self, request: Recorded) -> tuple[int, Any]:
        key = request.body["idempotency_key"]
        new = key not in self.runs
        if new:
            self.runs[key] = {"id": str(uuid5(NAMESPACE_URL, key)), "state_type": "SCHEDULED", **request.body}
        if self.lose_answers > 0:
            self.lose_answers -= 1
            return -1, None
        return (201 if new else 200), self.runs[key]


Answering = Callable[[Recorded], tuple[int, Any] | tuple[int, Any, dict[str, str]]]


@contextmanager
def loopback(answer: Answering, *, port: int = 0, own: Pair | None = None) -> Iterator[str]:
    """Serve JSON on loopback, with ``answer(request)`` as the response to each request; yield the URL.

    A response is a status and a body, and optionally headers; bytes are sent unchanged. With ``own``, a certificate and
    its key, it uses TLS.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            received = {name.lower(): value for name, value in self.headers.items()}
            recorded = Recorded(self.command, self.path, received, json.loads(data) if data else None)
            status, body, *more = answer(recorded)
            extra: dict[str, str] = dict(*more)
            if status < 0:
                self.close_connection = True
                return
            payload = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            for name, value in extra.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815 - names of http.server

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    if own is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own.certificate, own.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"{'https' if own else 'http'}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def fake_prefect(*, port: int = 0) -> Iterator[FakePrefect]:
    """Start a fake server on loopback."""
    prefect = FakePrefect()
    with loopback(prefect.answer, port=port) as url:
        prefect.url = f"{url}/api"
        yield prefect


def until(condition: Callable[[], bool], *, seconds: float) -> None:
    """Wait for a condition that a thread or another process fulfils."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s"
        time.sleep(0.2)


def send(address: str, push: dict[str, Any], *, delivery: str = "1") -> dict[str, Any]:
    """Deliver a signed push to a running receiver; return its response."""
    body = json.dumps(push).encode()
    headers = github_headers(body, delivery=delivery)
    answer = httpx.post(f"{address}/webhooks/github", content=body, headers=headers)
    assert answer.status_code == 202, answer.text
    document: dict[str, Any] = answer.json()
    return document


def stored_run(service: Service, key: str) -> OutboxRun:
    """Return the run with this key from the receiver's outbox."""
    run = service.outbox.run(key)
    assert run is not None
    return run


def runs_of(api_url: str, key: str) -> list[dict[str, Any]]:
    """Return the flow runs that a Prefect server has for an idempotency key."""
    body = {"flow_runs": {"idempotency_key": {"any_": [key]}}}
    answer = httpx.post(f"{api_url}/flow_runs/filter", json=body)
    while answer.status_code == 503:  # a busy server on SQLite
        time.sleep(0.2)
        answer = httpx.post(f"{api_url}/flow_runs/filter", json=body)
    found = answer.json()
    assert isinstance(found, list)
    return found
