"""Git repositories over HTTP: with a password through git's own CGI program, and as plain files (dumb HTTP).

Also servers that answer every request with a status or a redirect, and servers that record the logins they receive.
"""

import base64
import os
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.support.lfs_server import LfsServer

Check = Callable[[str, str, str], bool]
"""Takes path, user and password; returns whether they grant access to the repository."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, root: Path, check: Check, renamed: Mapping[str, str], *, refuse_single_commits: bool, posts_to: str | None
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.check = check
        self.renamed = renamed
        self.refuse_single_commits = refuse_single_commits
        self.posts_to = posts_to
        self.lfs: LfsServer | None = None


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        for old, new in self.server.renamed.items():
            if parts.path.startswith(old):
                self.send_response(301)
                self.send_header("Location", self.path.replace(old, new, 1))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        user, _, password = (
            base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode().partition(":")
        )
        if self.server.lfs is not None and "/info/lfs/" in parts.path:
            self._send(*self.server.lfs.answer(self.command, parts.path, f"{user}:{password}" if user else "", body))
            return
        if not user or not self.server.check(parts.path, user, password):
            self.send_response(401 if not user else 403)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.command == "POST" and self.server.posts_to is not None:
            self.send_response(307)
            self.send_header("Location", f"{self.server.posts_to}{self.path}")
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
            # With version 2 of the protocol, a server allows fetching every commit that it has.
            "HTTP_GIT_PROTOCOL": "" if self.server.refuse_single_commits else self.headers.get("Git-Protocol", ""),
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

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Type", "application/vnd.git-lfs+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


@contextmanager
def served_over_http(
    root: Path,
    check: Check,
    *,
    renamed: Mapping[str, str] | None = None,
    refuse_single_commits: bool = False,
    posts_to: str | None = None,
    lfs: LfsServer | None = None,
) -> Iterator[str]:
    """Yield the URL below which the repositories in ``root`` are served.

    ``renamed`` ones redirect on this server. With ``posts_to`` every POST redirects to that server, after the login.
    ``lfs`` answers requests for Git LFS files of all of them.
    """
    server = _Server(root, check, renamed or {}, refuse_single_commits=refuse_single_commits, posts_to=posts_to)
    with _running(server) as address:
        if lfs is not None:
            server.lfs, lfs.url = lfs, f"{address}/info/lfs"
        yield address


@contextmanager
def smart_until_fetched(root: Path, *, plain_root: Path | None = None, requires_login: bool = False) -> Iterator[str]:
    """Yield the URL of a server that lists refs with git's own program, and then becomes a plain web server.

    The plain one serves ``plain_root``, which is ``root`` by default. With ``requires_login`` both accept any login.
    """
    with served_over_http(root, lambda *_: True) as smart, plain_web_server(plain_root or root) as plain:
        listed: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                if requires_login and "Authorization" not in self.headers:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="git"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                upstream = plain if listed else smart
                headers = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() in ("content-type", "git-protocol")
                }
                headers["Authorization"] = "Basic " + base64.b64encode(b"any:any").decode()
                answer = httpx.request(
                    self.command, f"{upstream}{self.path}", content=body, headers=headers, trust_env=False
                )
                if self.command == "POST":
                    listed.append(self.path)
                self.send_response(answer.status_code)
                self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            do_GET = do_POST = _any  # noqa: N815 - names of http.server

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Log nothing."""

        with _running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as address:
            yield address


@contextmanager
def answering(status: int) -> Iterator[str]:
    """Yield the URL of a server or proxy that answers every request with this status."""

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_CONNECT = _any  # noqa: N815 - names of http.server

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

    with _running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as address:
        yield address


@contextmanager
def plain_web_server(folder: Path) -> Iterator[str]:
    """Yield the URL of a web server for a folder of bare repositories; git calls that dumb HTTP."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

    with _running(ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))) as address:
        yield address


@contextmanager
def requiring_login(logins: list[str], *, status: int = 401, requests: list[str] | None = None) -> Iterator[str]:
    """Yield the URL of a server (with 407, a proxy) that requires a login and records every one that it receives.

    The paths of all requests are recorded in ``requests``.
    """
    received, required = ("Authorization", "WWW-Authenticate")
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        received, required = ("Proxy-Authorization", "Proxy-Authenticate")

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            if requests is not None:
                requests.append(self.path)
            sent = self.headers.get(received)
            if sent is not None:
                logins.append(base64.b64decode(sent.removeprefix("Basic ")).decode())
            self.send_response(status)
            self.send_header(required, 'Basic realm="other"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_CONNECT = _any  # noqa: N815 - names of http.server

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

    with _running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as address:
        yield address


@contextmanager
def redirecting(
    target: str, *, status: int = 302, login_first: bool = False, tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """Yield the URL of a server that redirects every request to the same path below ``target``.

    With ``login_first`` it requires a login before it redirects; it accepts any.
    """

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            rejected = login_first and "Authorization" not in self.headers
            self.send_response(401 if rejected else status)
            if rejected:
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
            else:
                self.send_header("Location", f"{target}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = _any  # noqa: N815 - names of http.server

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    with _running(server) as address:
        yield address if tls is None else address.replace("http:", "https:")


@contextmanager
def _running(server: ThreadingHTTPServer) -> Iterator[str]:
    """Yield the URL of a server that runs in a thread during the block."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
