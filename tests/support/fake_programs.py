"""Fake programs: real executables first on a PATH, which record how they are called."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Programs:
    """A folder of fake programs. Each call is one line in ``calls``."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """An environment with these programs first, and a separate home."""
        return {"PATH": f"{self.folder}{os.pathsep}{os.defpath}", "HOME": str(self.folder), "CALLS": str(self._log)}

    @property
    def _log(self) -> Path:
        return self.folder / ".calls"

    def add(self, name: str, script: str) -> None:
        """Add a shell script with its arguments in ``"$@"``; its call is recorded in ``$CALLS`` first."""
        path = self.folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> "$CALLS"\n{script}\n')
        path.chmod(0o755)

    def add_python(self, name: str, script: str) -> None:
        """Add a Python script in the same way."""
        path = self.folder / name
        note = f"open(os.environ['CALLS'], 'a').write({name!r} + ' ' + ' '.join(sys.argv[1:]) + '\\n')"
        path.write_text(f"#!{sys.executable}\nimport os, sys\n{note}\n{script}\n")
        path.chmod(0o755)

    def calls(self) -> list[str]:
        """Return the calls so far, in order."""
        return self._log.read_text().splitlines() if self._log.exists() else []
