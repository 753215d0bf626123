"""A fake ``prefect`` command: a package of that name that records how it was started and keeps running.

As a server it answers health checks; for other commands it only waits to be ended.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MAIN = """
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

here = Path(__file__).parent
note = {"argv": sys.argv[1:], "folder": os.getcwd(), "pid": os.getpid(), "env": dict(os.environ)}
(here / "fresh").write_text(json.dumps(note))
(here / "fresh").rename(here / "started")
if (here / "broken").exists():
    sys.exit((here / "broken").read_text())

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()

if sys.argv[1] == "server":
    env = os.environ
    address = env["PREFECT_SERVER_API_HOST"], int(env["PREFECT_SERVER_API_PORT"])
    HTTPServer(address, Handler).serve_forever()
time.sleep(600)
"""


@dataclass(frozen=True)
class PrefectCommand:
    """The fake that ``python -m prefect`` starts in processes with ``env``."""

    folder: Path

    @classmethod
    def write(cls, folder: Path) -> "PrefectCommand":
        (folder / "prefect").mkdir(parents=True)
        # With this file, the first package on the path is used; without it, the installed one.
        (folder / "prefect" / "__init__.py").touch()
        (folder / "prefect" / "__main__.py").write_text(_MAIN)
        return cls(folder)

    @property
    def env(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}

    def fail(self, words: str) -> None:
        """Make it end immediately, with this text on its standard error."""
        (self.folder / "prefect" / "broken").write_text(words)

    @property
    def has_started(self) -> bool:
        return (self.folder / "prefect" / "started").exists()

    def started(self) -> dict[str, Any]:
        """Return its arguments (``argv``), working folder, process id and environment."""
        note: dict[str, Any] = json.loads((self.folder / "prefect" / "started").read_text())
        return note
