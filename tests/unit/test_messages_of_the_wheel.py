"""What the installed package says names no file that only the repository has."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "src" / "soci_pipeline"
_FOLDERS = ("benchmarks", "deployments", "docs", "examples", "flows", "local_stack", "requirements", "tasks", "tests")
_FILES = ("Makefile", "prefect.yaml", "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")
NAMED = re.compile(
    rf"(?<![\w./-])(?:(?:{'|'.join(_FOLDERS)})/[\w.]|(?:{'|'.join(map(re.escape, _FILES))})\b|make [a-z-]+`)"
)


def messages(source: str, *, help_is_docstring: bool) -> Iterator[tuple[int, str]]:
    """Every text that a user may read, with its line: no docstrings but a command's, and no bare names of files."""
    tree = ast.parse(source)
    kept = tree.body[:1] if help_is_docstring else []
    # A text that is a statement by itself documents what stands around it.
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and node not in kept}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in docstrings:
            continue
        if " " in node.value:
            yield node.lineno, node.value


def all_messages() -> list[tuple[str, str]]:
    return [
        (f"{path.relative_to(REPOSITORY)}:{line}", text)
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in messages(path.read_text(), help_is_docstring=path.parent.name == "commands")
    ]


def test_no_message_and_no_help_names_a_file_that_only_the_repository_has() -> None:
    found = all_messages()
    assert len(found) > 500
    assert [(place, text) for place, text in found if NAMED.search(text)] == []


@pytest.mark.parametrize(
    "text",
    ["docs/triggers.md describes it", "see deployments/cloudformation", "the Makefile has it", "`make demo` does"],
)
def test_such_a_name_would_be_seen(text: str) -> None:
    assert NAMED.search(text)


def test_the_folders_are_those_of_the_repository() -> None:
    assert all((REPOSITORY / name).exists() for name in (*_FOLDERS, *_FILES))
