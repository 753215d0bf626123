"""A stand-in for cosign, put first on the PATH, that writes down how it was called."""

import os
from pathlib import Path

import pytest

# Writes down how it was called; `verify` succeeds once `sign` was called.
COSIGN = """#!/bin/sh
echo "$@" >> "$RECORD/argv"
cat > "$RECORD/password.$1"
env > "$RECORD/environment"
[ -z "$DOCKER_CONFIG" ] || cp "$DOCKER_CONFIG/config.json" "$RECORD/config.json"
[ -z "$DOCKER_CONFIG" ] || stat -c %a "$DOCKER_CONFIG/config.json" > "$RECORD/mode"
case "$1" in
  sign) touch "$RECORD/signed" ;;
  verify) [ -e "$RECORD/signed" ] || { echo "no signatures found" >&2; exit 10; } ;;
esac
exit "${FAIL:-0}"
"""


def fake_cosign(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install it for one test; returns the folder that it writes to."""
    program = folder / "bin" / "cosign"
    program.parent.mkdir()
    program.write_text(COSIGN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(folder))
    return folder
