"""A fake cosign, first on the PATH, that records how it is called."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

# The output of `cosign sign --help` for each release. Debian's builds print no version.
HELP_2_5 = """
  cosign sign --key cosign.key --tlog-upload=false <IMAGE DIGEST>

    --identity-token='':
    --tlog-upload=true:
\twhether or not to upload to the tlog
    -y, --yes=false:
"""
HELP_2_6 = f"{HELP_2_5}    --signing-config='':\n    --trusted-root='':\n    --use-signing-config=false:\n"
HELP_3_0 = f"{HELP_2_5}    --signing-config='':\n    --trusted-root='':\n    --use-signing-config=true:\n"
HELP_3_1 = HELP_3_0.replace("    --tlog-upload=true:\n", "")

# Records its calls; `verify` succeeds after `sign` was called.
COSIGN = """#!/bin/sh
case "$*" in "sign --help") echo "${COSIGN_HELP:-    --tlog-upload=true:}"; exit 0 ;; esac
echo "$@" >> "$RECORD/argv"
cat > "$RECORD/password.$1"
call="$1"
while [ $# -gt 1 ]; do
  case "$1" in
    --signing-config | --trusted-root | --identity-token)
      cat "$2" > "$RECORD/${1#--}"; stat -c "%a %n" "$2" > "$RECORD/${1#--}.mode" ;;
  esac
  shift
done
env > "$RECORD/environment"
[ -z "$DOCKER_CONFIG" ] || cp "$DOCKER_CONFIG/config.json" "$RECORD/config.json"
[ -z "$DOCKER_CONFIG" ] || stat -c %a "$DOCKER_CONFIG/config.json" > "$RECORD/mode"
case "$call" in
  sign) touch "$RECORD/signed" ;;
  verify) [ -e "$RECORD/signed" ] || { echo "no signatures found" >&2; exit 10; } ;;
esac
exit "${FAIL:-0}"
"""


def fake_cosign(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install it for one test; return the folder that it writes to."""
    program = folder / "bin" / "cosign"
    program.parent.mkdir()
    program.write_text(COSIGN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(folder))
    return folder


@contextmanager
def fulcio_that_refuses(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a signing config for a local certificate authority that rejects requests, and the file recording them."""
    heard = folder / "heard"

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.write_text(f"{self.headers}{body.decode()}")
            self.send_error(401)

        def log_message(self, *args: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    service = {
        "url": f"http://127.0.0.1:{server.server_port}",
        "majorApiVersion": 1,
        "validFor": {"start": "2024-01-01T00:00:00Z"},
        "operator": "test",
    }
    config = folder / "services.json"
    media_type = "application/vnd.dev.sigstore.signingconfig.v0.2+json"
    config.write_text(json.dumps({"mediaType": media_type, "caUrls": [service]}))
    try:
        yield config, heard
    finally:
        server.shutdown()
        server.server_close()
