"""A small web service: a page that says where it runs, and a health check. Only the standard library is needed."""

import html
import json
import os
import platform
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template

PAGE = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


def machine() -> dict[str, str]:
    """What the page shows: the architecture tells the images of one tag apart."""
    return {
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "hostname": platform.node(),
    }


class Handler(BaseHTTPRequestHandler):
    """Answers ``/``, ``/machine`` and ``/health``."""

    server_version = "hello-web"

    def do_GET(self) -> None:
        """Send the page that is asked for."""
        if self.path == "/":
            page = PAGE.substitute({name: html.escape(value) for name, value in machine().items()})
            self._send(200, "text/html; charset=utf-8", page)
        elif self.path == "/machine":
            self._send(200, "application/json", json.dumps(machine()))
        elif self.path == "/health":
            self._send(200, "text/plain; charset=utf-8", "ok\n")
        else:
            self._send(404, "text/plain; charset=utf-8", "there is no such page\n")

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    address = (os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8080")))  # noqa: S104 - a container's
    server = ThreadingHTTPServer(address, Handler)

    def stop(*_: object) -> None:
        # `shutdown` waits for the loop, which this handler interrupts.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"hello-web listens on {address[0]}:{server.server_port}", flush=True)
    server.serve_forever()
    server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
