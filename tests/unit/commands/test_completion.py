"""The completion scripts, read by the shells that they are for, and what the program answers them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from soci_pipeline.cli import COMMANDS, main
from soci_pipeline.commands.completion import SHELLS, completion_script


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script for bash, with the program that it runs beside it."""
    folder = tmp_path_factory.mktemp("completion")
    program = folder / "soci-pipeline"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m soci_pipeline "$@"\n')
    program.chmod(0o755)
    path = folder / "soci-pipeline.bash"
    path.write_text(completion_script("bash"))
    return path


def _in_bash(source: str, script: Path, *words: str) -> set[str]:
    """What bash offers for the last of the words."""
    program = (
        f"{source}; COMP_WORDS=(soci-pipeline {' '.join(words[:-1])} '{words[-1]}'); COMP_CWORD={len(words)}; "
        "$(complete -p soci-pipeline | sed 's/.*-F \\([^ ]*\\).*/\\1/') soci-pipeline; "
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    environment = os.environ | {"PATH": f"{script.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True, env=environment)
    return set(done.stdout.split())


def _completed(script: Path, *words: str) -> set[str]:
    return _in_bash(f"source {script}", script, *words)


def _asked(shell: str, words: str, position: str) -> subprocess.CompletedProcess[str]:
    """What the program answers the script of a shell."""
    variables = {"_SOCI_PIPELINE_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": position}
    command = [sys.executable, "-X", "importtime", "-m", "soci_pipeline"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | variables)


def test_bash_offers_every_command_and_no_other(script: Path) -> None:
    assert _completed(script, "") == set(COMMANDS)
    assert _completed(script, "ztoc-") == {"ztoc-info", "ztoc-get-file"}


def test_the_documented_line_completes_commands_and_options_in_bash(script: Path) -> None:
    documented_line = "source <(soci-pipeline completion bash)"
    page = Path(__file__).resolve().parents[3] / "docs" / "commands.md"
    assert f"\n{documented_line}\n" in page.read_text()
    assert _in_bash(documented_line, script, "pru") == {"prune"}
    assert _in_bash(documented_line, script, "push", "--pla") == {"--plain-http", "--platform"}


def test_bash_offers_the_options_of_a_command(script: Path) -> None:
    offered = _completed(script, "verify", "--")
    assert {"--all", "--platform", "--jobs", "--plain-http", "--ca-file", "--json", "--quiet", "--help"} <= offered
    assert "--version" in _completed(script, "--")


def test_bash_offers_the_values_of_an_option(script: Path) -> None:
    assert _completed(script, "index", "--verify", "") == {"sample", "all", "off"}
    assert _completed(script, "webhook", "") == {"serve", "check"}
    assert "--config" in _completed(script, "webhook", "serve", "--c")


def test_a_line_that_is_wrong_so_far_is_completed_without_an_error(script: Path) -> None:
    assert _completed(script, "verify", "--ca-file", "--jobs", "--al") == {"--all"}
    assert _completed(script, "publsh", "--ver") == {"--version", "--verbose"}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_that_is_here_reads_its_script(shell: str, tmp_path: Path) -> None:
    path = tmp_path / f"script.{shell}"
    path.write_text(completion_script(shell) + "\n")
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine; the script was made all the same")
    subprocess.run([shell, "-n", path], check=True)


@pytest.mark.parametrize(("shell", "position"), [("bash", "1"), ("zsh", "1"), ("fish", "")])
def test_every_shell_is_answered_with_all_commands_without_importing_them(shell: str, position: str) -> None:
    answer = _asked(shell, "soci-pipeline ", position)
    assert all(name in answer.stdout for name in COMMANDS)
    imported = {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines()}
    modules = {f"soci_pipeline.commands.{place.partition(':')[0]}" for place, _ in COMMANDS.values()}
    assert modules & imported == {"soci_pipeline.commands.completion"}


@pytest.mark.parametrize("instruction", ["", "tcsh", "bash_", "bash_source", "powershell"])
def test_an_instruction_that_no_script_gives_is_answered_with_nothing(instruction: str) -> None:
    environment = os.environ | {"_SOCI_PIPELINE_COMPLETE": instruction}
    command = [sys.executable, "-m", "soci_pipeline", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(("shell", "first"), [("bash", "# Made by"), ("zsh", "#compdef"), ("fish", "# Made by")])
def test_a_script_names_no_other_place_for_itself_than_the_help(shell: str, first: str) -> None:
    text = completion_script(shell)
    assert text.startswith(first)
    assert "`soci-pipeline completion --help` says where it goes" in text
    assert not any(word in text for word in ("GENERATED", "Copy this", ".local/share", "# See also"))


def test_a_call_without_a_shell_names_the_shells(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion"]) == 2
    said = capsys.readouterr().err
    assert "Missing argument" in said
    assert all(shell in said for shell in SHELLS)


def test_another_shell_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "dos"]) == 2
    said = capsys.readouterr().err
    assert "'dos' is not one of 'bash', 'zsh', 'fish'" in said
