"""`soci-pipeline explain`: an entry for every error, found by name or exit status, without a network."""

import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

import soci_pipeline
from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode, SociPipelineError
from soci_pipeline.troubleshooting import read_entries


def _classes(parent: type[SociPipelineError]) -> Iterator[type[SociPipelineError]]:
    for child in parent.__subclasses__():
        if child.__module__.startswith("soci_pipeline."):
            yield child
        yield from _classes(child)


def _error_classes() -> dict[str, type[SociPipelineError]]:
    for module in pkgutil.walk_packages(soci_pipeline.__path__, "soci_pipeline."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return {each.__name__: each for each in _classes(SociPipelineError)}


def test_every_error_class_has_an_entry_with_its_exit_status() -> None:
    entries = {entry.name: entry for entry in read_entries()}
    classes = _error_classes()
    assert len(classes) > 40
    assert {name: each.exit_code.value for name, each in classes.items()} == {
        name: entries[name].status for name in classes if name in entries
    }


def test_every_exit_status_has_an_entry() -> None:
    assert {code.value for code in ExitCode} - {entry.status for entry in read_entries()} == {0}


def test_no_error_has_two_entries_and_each_says_something() -> None:
    entries = read_entries()
    assert len({entry.name.lower() for entry in entries}) == len(entries)
    assert [entry.name for entry in entries if not entry.summary.endswith(".") or not entry.text] == []


@pytest.mark.parametrize("wanted", ["TagConflict", "tagconflict"])
def test_an_error_is_explained_by_its_name(wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", wanted]) == ExitCode.OK
    text = capsys.readouterr().out
    assert text.startswith("TagConflict (exit status 18): A tag must not move.\n\n")
    assert "--force-tags" in text


def test_all_errors_with_an_exit_status_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "18", "--json"]) == ExitCode.OK
    names = [each["error"] for each in json.loads(capsys.readouterr().out)["errors"]]
    assert names == ["TagConflict", "ImmutableTag", "RepositoryChanged"]


def test_without_an_error_all_are_listed_with_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(read_entries())
    assert " 18  TagConflict            A tag must not move." in lines


def test_a_mistyped_error_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "TagConflikt"]) == ExitCode.INVALID_INPUT
    assert "Did you mean `TagConflict`?" in capsys.readouterr().err


@pytest.mark.parametrize("wanted", ["0", "99", "nothing like it", ""])
def test_what_is_not_an_error_names_the_list(wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", wanted]) == ExitCode.INVALID_INPUT
    assert "`soci-pipeline explain` lists all errors." in capsys.readouterr().err


def test_a_failed_command_names_the_entry_of_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", "/nowhere", "127.0.0.1:9/a/b:c"]) == ExitCode.INVALID_INPUT
    assert capsys.readouterr().err.splitlines()[-1] == "  more: soci-pipeline explain InvalidInput"


def test_explaining_imports_neither_http_nor_models() -> None:
    code = (
        "import sys\nfrom soci_pipeline.cli import main\nassert main(['explain', 'DiskFull']) == 0\n"
        "print([name for name in ('httpx', 'pydantic', 'boto3') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
