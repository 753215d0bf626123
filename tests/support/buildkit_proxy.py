"""A BuildKit endpoint in front of a Docker engine, for `buildx create --driver remote` in a test.

The engine speaks BuildKit's protocol after an upgrade of ``POST /grpc``, which a remote builder does not send.
"""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator

_UPGRADE = b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n"


@contextlib.contextmanager
def buildkit_address(docker_host: str) -> Iterator[str]:
    """Yield the URL ``tcp://127.0.0.1:PORT`` of the engine's BuildKit."""
    path = docker_host.removeprefix("unix://")

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as engine:
                engine.connect(path)
                engine.sendall(_UPGRADE)
                _skip_answer(engine)
                back = threading.Thread(target=_pipe, args=(engine, self.request))
                back.start()
                _pipe(self.request, engine)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _skip_answer(engine: socket.socket) -> None:
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += engine.recv(1)
    assert b" 101 " in answer.splitlines()[0], answer


def _pipe(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
