"""The parts of the documentation that the code determines."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from soci_pipeline.settings import PREFIX, _variables
from soci_pipeline.troubleshooting import read_entries

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_reference", DOCS / "generate_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_committed_pages_are_what_the_code_gives(generator: ModuleType) -> None:
    """Run `python docs/generate_reference.py` if this fails."""
    pages = list(generator.pages())
    assert [page.name for page in pages] == ["parameters.md", "settings.md", "troubleshooting.md"]
    assert [page.name for page in pages if generator.generated(page.read_text()) != page.read_text()] == []


def test_a_page_that_differs_is_found(generator: ModuleType) -> None:
    page = (DOCS / "settings.md").read_text()
    assert "| `WORK_JOBS` | `2` |" in page
    assert generator.generated(page.replace("| `WORK_JOBS` | `2` |", "| `WORK_JOBS` | `3` |")) == page


def test_every_setting_is_documented() -> None:
    page = (DOCS / "settings.md").read_text()
    assert [name for name in _variables() if f"`{name.removeprefix(PREFIX)}`" not in page] == []


def test_every_error_is_a_section_of_the_troubleshooting_page() -> None:
    lines = (DOCS / "troubleshooting.md").read_text().splitlines()
    assert [entry.name for entry in read_entries() if f"## {entry.name}" not in lines] == []
