"""The documentation site as `make docs` builds it."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def make_docs(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a project with the repository's Makefile."""
    command = ["make", "-C", str(REPOSITORY), "docs", f"DOCS_SOURCES={project}", f"DOCS_OUTPUT={site}"]
    # Otherwise make takes part in the job server of the make that runs the tests.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@contextlib.contextmanager
def built(folder: Path) -> Iterator[Path]:
    """Build the site of this repository; any output on standard error fails the test."""
    site = folder / "site"
    done = make_docs(REPOSITORY, site)
    assert (done.returncode, done.stderr) == (0, "")
    yield site
