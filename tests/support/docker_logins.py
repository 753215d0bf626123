"""Record which login docker and oras send with a configuration, with fakes of an engine and a registry."""

import base64
import contextlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from soci_pipeline.errors import ToolFailed
from soci_pipeline.machine import programs

_SECONDS = 60
_EMPTY = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": f"sha256:{'4' * 64}"}
_MANIFEST = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": _EMPTY,
    "layers": [],
}


class _Noting(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.noted: list[str | None] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Noting
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, document: object, **headers: str) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Log nothing."""


class _Registry(_Handler):
    """Requires a login, and accepts any."""

    def do_GET(self) -> None:
        header = self.headers.get("Authorization")
        if header is None:
            self.answer(401, {}, WWW_Authenticate='Basic realm="double"')
            return
        self.server.noted.append(base64.b64decode(header.removeprefix("Basic ")).decode(errors="replace"))
        self.answer(200, _MANIFEST, Content_Type=str(_MANIFEST["mediaType"]))

    def do_HEAD(self) -> None:
        self.do_GET()


class _Engine(_Handler):
    """Accepts any call; docker sends the selected login with the call that pulls an image."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        header = self.headers.get("X-Registry-Auth")
        if header is not None:
            login = json.loads(base64.urlsafe_b64decode(header + "==") or b"{}")
            self.server.noted.append(_as_text(login))
        self.answer(200, {}, API_Version="1.43", OSType="linux", Content_Type="application/json")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()


def _as_text(login: dict[str, str]) -> str | None:
    for kind in ("identity", "registry"):
        if token := login.get(f"{kind}token"):
            return f"{kind} token {token}"
    pair = f"{login.get('username', '')}:{login.get('password', '')}"
    return None if pair == ":" else pair


@dataclass
class Doubles:
    """A registry and an engine on loopback."""

    registry: _Noting = field(default_factory=lambda: _Noting(_Registry))
    engine: _Noting = field(default_factory=lambda: _Noting(_Engine))

    def docker(self, folder: Path) -> str | None:
        """Return the login that docker sends with the configuration in a folder; None if it sends none."""
        image = f"{self.registry.address}/team-b/app:1"
        return self._sent(self.engine, ["docker", "-H", f"tcp://{self.engine.address}", "pull", image], folder)

    def oras(self, folder: Path) -> str | None:
        """Return the same for oras."""
        argv = ["oras", "manifest", "fetch", "--plain-http", f"{self.registry.address}/team-b/app:1"]
        return self._sent(self.registry, argv, folder)

    def _sent(self, server: _Noting, argv: list[str], folder: Path) -> str | None:
        server.noted.clear()
        with contextlib.suppress(ToolFailed):
            programs.run(argv, env=os.environ | {"DOCKER_CONFIG": str(folder)}, timeout=_SECONDS)
        return server.noted[-1] if server.noted else None


@contextlib.contextmanager
def docker_doubles() -> Iterator[Doubles]:
    doubles = Doubles()
    servers = (doubles.registry, doubles.engine)
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield doubles
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
