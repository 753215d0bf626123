"""Docker credential helpers: executables on a test's PATH, each with a different response."""

import os
from pathlib import Path

import pytest

from tests.support.programs import write_program

LOGIN = '"ServerURL":"x","Username":"helper","Secret":"kept"'
NOT_FOUND = "credentials not found in native keychain"
ANSWERS = {
    "ok": f"echo '{{{LOGIN}}}'",
    "token": """echo '{"Username":"<token>","Secret":"kept"}'""",
    "lower-case": """echo '{"username":"helper","secret":"kept"}'""",
    "noisy": f"echo 'a newer version is available' >&2; echo '{{{LOGIN}}}'",
    "trailing": f"echo '{{{LOGIN}}}'; echo 'a newer version is available'",
    "url-only": f"case $server in https://*) echo '{{{LOGIN}}}' ;; *) echo '{NOT_FOUND}'; exit 1 ;; esac",
    "absent": f"echo '{NOT_FOUND}'; exit 1",
    "absent-noisy": f"echo '{NOT_FOUND}'; echo 'a newer version is available' >&2; exit 1",
    "absent-on-stderr": f"echo '{NOT_FOUND}' >&2; exit 1",
    "absent-status-0": f"echo '{NOT_FOUND}'",
    "absent-status-5": f"echo '{NOT_FOUND}'; exit 5",
    "empty": """echo '{"ServerURL":"","Username":"","Secret":""}'""",
    "without-user": """echo '{"Username":"","Secret":"marked-secret"}'""",
    "without-secret": """echo '{"Username":"helper","Secret":""}'""",
    "failing": "echo 'marked-secret is locked'; exit 3",
    "killed": "kill -9 $$",
    "silent": "exit 0",
    "garbage": "echo 'marked-secret?'",
    "leading": f"echo 'marked-secret'; echo '{{{LOGIN}}}'",
    "null": "echo null",
    "list": "echo '[]'",
    "numbers": """echo '{"Username":1,"Secret":2}'""",
    "half": """echo '{"Username":"helper"}'""",
    "deep": "printf '[%.0s' $(seq 20000)",
    "huge": "exec head -c 40000000 /dev/zero",
    "endless": "exec yes marked-secret",
    "endless-on-stderr": f"yes marked-secret >&2; echo '{{{LOGIN}}}'",
}


def install_helpers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put all of them first on the PATH; each records its name and input in the file that is returned."""
    log = folder / "helpers.log"
    programs = folder / "helpers"
    for name, script in ANSWERS.items():
        write_program(
            programs, f"docker-credential-{name}", f'read -r server\necho "{name} $* $server" >> "{log}"\n{script}'
        )
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return log
