"""A real HTTP server on loopback with fixed responses."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """Its URL, the responses by path (status, body; for a redirect, the target), and the requested paths."""

    address: str
    answers: dict[str, tuple[int, bytes]]
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def serving_files(answers: Mapping[str, tuple[int, bytes]]) -> Iterator[FileServer]:
    """Serve during the block; paths without a response get a 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files.asked.append(self.path)
            status, body = files.answers.get(self.path.partition("?")[0], (404, b"not found"))
            self.send_response(status)
            if status in (301, 302, 307):
                self.send_header("Location", body.decode())
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Log nothing: tests use `FileServer.asked`."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        files = FileServer(f"http://127.0.0.1:{server.server_port}", dict(answers))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield files
        finally:
            server.shutdown()
            thread.join()
