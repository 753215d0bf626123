"""Extract the commands in the documentation, so that tests run what a reader reads and not a copy of it.

`documented` finds the one shell block of a document that has a certain line, and `Block.run` runs it in a sandbox.
`tests/unit/test_documentation.py` checks that every shell block is either used by a test in this way or listed there
with the reason why it cannot be run.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SHELL_LANGUAGES = frozenset({"console", "sh", "bash", "shell"})

# By document and heading: sections whose commands `tests/service/aws/test_operations_page.py` runs in order. It has the
# reasons for the few that it omits.
SECTIONS_RUN_IN_ORDER = (
    ("docs/aws-from-an-empty-account.md", "From an empty AWS account to the first tag"),
    ("docs/aws-from-an-empty-account.md", "Running it on AWS"),
)

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,})(?P<language>[\w-]*)[^\n]*$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a Markdown document; ``document`` is relative to the repository, ``line`` is its first line.

    ``section`` is the second-level heading above it, or empty.
    """

    document: str
    line: int
    language: str
    text: str
    section: str = ""

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def is_shell(self) -> bool:
        return self.language in SHELL_LANGUAGES

    def has(self, line: str) -> bool:
        """Whether a line of the block starts with ``line``, ignoring indentation."""
        return any(each.strip().startswith(line) for each in self.text.splitlines())

    def commands(self) -> list[str]:
        """Split into commands; an open quote or a backslash continues a command on the next line."""
        found: list[str] = []
        pending = ""
        for line in self.text.splitlines():
            pending = f"{pending}\n{line}" if pending else line
            if _is_whole(pending):
                found += [pending] if shlex.split(pending, comments=True) else []
                pending = ""
        assert not pending, f"{self} ends within a command"
        return found

    def script(self, replacing: Mapping[str, str] | None = None) -> str:
        """Return the block as a shell script with placeholders replaced; each must be in the text."""
        script = self.text
        for placeholder, value in (replacing or {}).items():
            assert placeholder in script, f"{self} does not say {placeholder!r}"
            script = script.replace(placeholder, value)
        return script

    def run(
        self,
        folder: Path,
        *,
        replacing: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run the block with bash in ``folder``, up to the first failing command, which fails the test."""
        command = ["bash", "-euo", "pipefail", "-c", self.script(replacing)]
        environment = dict(os.environ) | dict(env or {})
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, f"{self} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done


def _is_whole(command: str) -> bool:
    if command.endswith("\\"):
        return False
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return True


def documents() -> list[Path]:
    """Return every tracked Markdown document, sorted by path."""
    listing = subprocess.run(
        ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for name in sorted(set(listing.stdout.split("\0"))) if name and (path := REPOSITORY / name).is_file()]


def blocks(document: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a document, without the indentation of a list."""
    name = document.relative_to(REPOSITORY).as_posix()
    opened: re.Match[str] | None = None
    start, lines, section = 0, list[str](), ""
    for number, line in enumerate(document.read_text().splitlines(), start=1):
        found = _FENCE.match(line)
        if opened is None:
            if found:
                opened, start, lines = found, number, []
            elif line.startswith("## "):
                section = line.removeprefix("## ").strip()
        elif found and found["ticks"].startswith(opened["ticks"]) and not found["language"]:
            yield Block(name, start, opened["language"], "\n".join(lines) + "\n", section)
            opened = None
        else:
            lines.append(line.removeprefix(opened["indent"]))
    assert opened is None, f"{name}:{start}: the block is never closed"


def shell_blocks() -> list[Block]:
    """Return every block with shell commands in all documents."""
    return [block for document in documents() for block in blocks(document) if block.is_shell]


def documented(document: str, line: str) -> Block:
    """Return the one shell block with a line that starts with ``line``; fail the test if it is not unique."""
    found = [block for block in blocks(REPOSITORY / document) if block.is_shell and block.has(line)]
    assert len(found) == 1, f"{document} has {len(found)} blocks with a line {line!r}"
    return found[0]
