"""The completion scripts, read by the shells that they are for."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from soci_pipeline.cli import COMMANDS, main
from soci_pipeline.commands.completion import SHELLS, completion_script


def _completed(words: list[str], script: Path) -> set[str]:
    """What bash offers for the last word."""
    program = (
        f"source {script}; COMP_WORDS=({' '.join(words)} ''); COMP_CWORD={len(words)}; "
        'COMP_LINE="${COMP_WORDS[*]}"; COMP_POINT=${#COMP_LINE}; '
        "$(complete -p soci-pipeline | sed 's/.*-F \\([^ ]*\\).*/\\1/'); printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "soci-pipeline.bash"
    path.write_text(completion_script("bash"))
    return path


def test_bash_offers_every_command(script: Path) -> None:
    assert set(COMMANDS) <= _completed(["soci-pipeline"], script)


def test_bash_offers_the_values_of_an_option(script: Path) -> None:
    assert _completed(["soci-pipeline", "index", "--verify"], script) == {"sample", "all", "off"}
    assert _completed(["soci-pipeline", "webhook"], script) >= {"serve", "check"}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_that_is_here_reads_its_script(shell: str, tmp_path: Path) -> None:
    path = tmp_path / f"script.{shell}"
    path.write_text(completion_script(shell) + "\n")
    text = path.read_text()
    assert all(re.search(rf"(?<![\w-]){name}(?![\w-])", text) for name in COMMANDS)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine; the script was made all the same")
    subprocess.run([shell, "-n", path], check=True)


@pytest.mark.parametrize(("shell", "first"), [("bash", "# Made by"), ("zsh", "#compdef"), ("fish", "# Made by")])
def test_a_script_names_no_other_place_for_itself_than_the_help(shell: str, first: str) -> None:
    text = completion_script(shell)
    assert text.startswith(first)
    assert "`soci-pipeline completion --help` says where it goes" in text
    assert not any(word in text for word in ("GENERATED", "Copy this", ".local/share", "# See also"))


def test_a_call_without_a_shell_comes_with_a_sample(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion"]) == 2
    assert "next: For example `soci-pipeline completion bash`;" in capsys.readouterr().err


def test_another_shell_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "dos"]) == 2
    assert "invalid choice: 'dos'" in capsys.readouterr().err
