"""The linter for prose: what it reports, where, and what it must not take for prose."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.prose import load_rules, tracked

REPOSITORY = Path(__file__).resolve().parents[2]
BAD = [(text, rule.use) for rule in load_rules() for text in rule.bad]
GOOD = [text for rule in load_rules() for text in rule.good]


def _run(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.prose", *map(str, files)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def _lines(tmp_path: Path, name: str, text: str) -> list[int]:
    """Return the lines that the linter reports in a file with this text."""
    file = tmp_path / name
    file.write_text(text)
    done = _run(file)
    found = [line.removeprefix(f"{file}:").split(":")[0] for line in done.stdout.splitlines()]
    assert done.returncode == (1 if found else 0), done.stderr
    return [int(line) for line in found]


def _reports(tmp_path: Path, name: str, lines: list[str]) -> list[str]:
    """Return what the linter says of each line; every line must have a report."""
    file = tmp_path / name
    file.write_text("\n".join(lines) + "\n")
    done = _run(file)
    assert done.returncode == 1
    said: dict[int, str] = {}
    for report in done.stdout.splitlines():
        number, _, rest = report.removeprefix(f"{file}:").partition(": ")
        said[int(number)] = said.get(int(number), "") + rest
    return [said[number] for number in range(1, len(lines) + 1)]


def test_every_bad_example_in_a_document_is_reported_with_its_line_and_what_to_write(tmp_path: Path) -> None:
    said = _reports(tmp_path, "page.md", [f"- {text}" for text, _ in BAD])
    assert [use for (_, use), report in zip(BAD, said, strict=True) if f": use {use}" not in report] == []


@pytest.mark.parametrize("form", ["x = {!r}", "# {}", "x = f{!r}"])
def test_every_bad_example_in_a_source_is_reported_with_its_line(tmp_path: Path, form: str) -> None:
    said = _reports(tmp_path, "module.py", [form.format(text) for text, _ in BAD])
    assert [use for (_, use), report in zip(BAD, said, strict=True) if f": use {use}" not in report] == []


@pytest.mark.parametrize(("name", "form"), [("page.md", "- {}"), ("module.py", "# {}")])
def test_no_good_example_is_reported(tmp_path: Path, name: str, form: str) -> None:
    assert _lines(tmp_path, name, "".join(f"{form.format(text)}\n" for text in GOOD)) == []


@pytest.mark.parametrize(
    "text",
    [
        "`is told`\n",
        "``a ` is told``\n",
        "```sh\nis told\n```\n",
        "- a list\n\n  ```text\n  is told\n  ```\n",
        "~~~\nis told\n~~~\n",
        "[a page](is-told/told.md)\n",
        "https://example.com/told\n",
        "retold, un-told, toldness\n",
        "It is\n\nno paragraph goes on in the next one.\n",
    ],
)
def test_what_is_not_prose_in_a_document_is_not_reported(tmp_path: Path, text: str) -> None:
    assert _lines(tmp_path, "page.md", text) == []


@pytest.mark.parametrize(
    "text",
    [
        "told = told(told=told)\n",
        "x = 'told'\n",
        "x = b'is told'\n",
        "x = 'the field `told` is set'\n",
        "x = f'the worker {told} is {told(told)}'\n",
        "x = f'the worker {told:>{told}} is set'\n",
        "x = ['it is', 'no image']\n",
        "x = 'it is '; y = 'no image'\n",
        "x = 1  # it is\ny = 2  # no image\n",
        "# it is\n#\n# no image\n",
    ],
)
def test_what_is_not_prose_in_a_source_is_not_reported(tmp_path: Path, text: str) -> None:
    assert _lines(tmp_path, "module.py", text) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.md", "\n\nIt is\nno image.\n"),
        ("page.md", "\n\n- It is\n  no image.\n"),
        ("page.md", "```sh\n```\nIt is [told](x.md) `told`.\n"),
        ("module.py", '"""A module.\n\nIt is\nno image."""\n'),
        ("module.py", "x = (\n\n    'it is '\n    'no image'\n)\n"),
        ("module.py", "x = (\n\n    f'{x} is '\n    f'no {x}'\n)\n"),
        ("module.py", "x = (\n\n    'it is '  # a comment\n    'no image'\n)\n"),
        ("module.py", "x = 1\n\n# It is\n# no image.\n"),
        ("module.py", "def f():\n\n    raise E(f'{x!r} is told')\n"),
        ("module.py", "x = '''\n\n\\nTold of it'''\n"),
    ],
)
def test_a_phrase_is_reported_at_the_line_where_it_begins(tmp_path: Path, name: str, text: str) -> None:
    assert _lines(tmp_path, name, text) == [3]


def test_several_files_are_checked_and_the_clean_one_is_not_named(tmp_path: Path) -> None:
    clean, first, second = tmp_path / "clean.md", tmp_path / "first.md", tmp_path / "second.py"
    clean.write_text("The image is valid.\n")
    first.write_text("A refusal.\n")
    second.write_text("# A refusal, and another refusal.\n")
    done = _run(clean, first, second)
    assert done.returncode == 1
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [f"{first}:1", f"{second}:1", f"{second}:1"]
    assert done.stderr.startswith("3 phrases to replace")


def test_a_file_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    done = _run(tmp_path / "missing.md")
    assert done.returncode == 2
    assert "missing.md" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_arguments_the_documents_and_the_sources_are_checked() -> None:
    """`make check` requires that nothing is found; this shows that it would be."""
    listed = tracked()
    expected = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/glossary.md", "src/soci_pipeline/__main__.py"}
    assert set(listed) >= expected
    assert {name.split("/")[0] for name in listed if name.endswith(".py")} == {"src", "tasks", "flows", "local_stack"}
