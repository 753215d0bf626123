"""Git repositories over HTTP with a password, by git's own CGI program; and a server that has only a status to say."""

import base64
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

Check = Callable[[str, str, str], bool]
"""Takes path, user and password; answers whether they open the repository."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, root: Path, check: Check) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.check = check


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        user, _, password = (
            base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode().partition(":")
        )
        if not user or not self.server.check(parts.path, user, password):
            self.send_response(401 if not user else 403)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""


@contextmanager
def served_over_http(root: Path, check: Check) -> Iterator[str]:
    """The address under which the repositories below ``root`` are found."""
    with _running(_Server(root, check)) as address:
        yield address


@contextmanager
def answering(status: int) -> Iterator[str]:
    """The address of a server, or of a proxy, that answers whatever it is asked with this status."""

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_CONNECT = _any  # noqa: N815 - names of http.server

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Stay quiet."""

    with _running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as address:
        yield address


@contextmanager
def _running(server: ThreadingHTTPServer) -> Iterator[str]:
    """The address of a server that answers from a thread while the block runs."""
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
