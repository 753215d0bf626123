"""The connection to Prefect that the environment names, and the credentials that go with it."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.prefect_api import PrefectApi


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    seen: list[str | None]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append(self.headers.get("Authorization"))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as made:
        made.seen = []
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("given", "header"),
    [
        ({}, None),
        ({"PREFECT_API_KEY": "pnu_1"}, "Bearer pnu_1"),
        ({"PREFECT_API_AUTH_STRING": "admin:pass"}, "Basic YWRtaW46cGFzcw=="),
    ],
    ids=["nobody", "key", "auth-string"],
)
def test_the_credentials_are_those_that_prefect_would_take(
    server: _Server, given: dict[str, str], header: str | None
) -> None:
    address = f"http://127.0.0.1:{server.server_address[1]}/api"
    with PrefectApi.from_environment({"PREFECT_API_URL": address} | given) as api:
        assert api.online_workers("soci-amd64") == ()
    assert server.seen == [header]


def test_without_an_address_nothing_is_asked() -> None:
    with pytest.raises(InvalidInput, match="PREFECT_API_URL is not set"):
        PrefectApi.from_environment({})
