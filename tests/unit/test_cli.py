"""The frame of the `soci-pipeline` command: where answers and errors go, and that what is written about it is true."""

import errno
import json
import logging
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from soci_pipeline import cli
from soci_pipeline._version import __version__
from soci_pipeline.cli import COMMANDS, main
from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import Arguments, command
from soci_pipeline.errors import ExitCode, InvalidInput, SociPipelineError
from soci_pipeline.log import logger

REPOSITORY = Path(__file__).resolve().parents[2]
INTERRUPTED = 130

_INTERRUPTS_THE_IMPORT = """
import os, signal, sys

# As in a terminal: what a shell starts in the background has the signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "soci_pipeline.commands.inspect":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""


@pytest.fixture(autouse=True)
def log_level_as_before() -> Iterator[None]:
    """A command sets how much the library logs."""
    library = logging.getLogger("soci_pipeline")
    before = library.level
    yield
    library.setLevel(before)


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Arguments], CommandResult]], None]:
    """Adds a command named ``probe`` that does what a test wants to see the frame deal with."""

    def add(run: Callable[[Arguments], CommandResult]) -> None:
        module = types.ModuleType("soci_pipeline.commands.probe")
        module.__dict__["run"] = command("Try the frame.\n\nExit statuses: 0 always.")(click.argument("word")(run))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(COMMANDS, "probe", ("probe:run", "try the frame"))

    return add


def _all_subclasses(kind: type[SociPipelineError]) -> set[type[SociPipelineError]]:
    direct = set(kind.__subclasses__())
    return direct.union(*(_all_subclasses(each) for each in direct))


def _raising(error: BaseException) -> Callable[[Arguments], CommandResult]:
    def run(arguments: Arguments) -> CommandResult:
        raise error

    return run


def _help_of(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_answer_is_text_on_standard_output(probe: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    probe(lambda arguments: CommandResult(json={"said": arguments.word}, text=f"said {arguments.word}"))
    assert main(["probe", "yes"]) == ExitCode.OK
    assert capsys.readouterr() == ("said yes\n", "")


@pytest.mark.parametrize("words", [["probe", "yes", "--json"], ["probe", "--json", "yes"], ["--json", "probe", "yes"]])
def test_with_json_the_answer_is_one_object(
    words: list[str], probe: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    probe(lambda arguments: CommandResult(json={"said": arguments.word}, text=f"said {arguments.word}"))
    assert main(words) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"said": "yes"}


def test_a_command_may_answer_and_fail(probe: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    probe(lambda arguments: CommandResult(json={"ok": False}, exit_code=ExitCode.VERIFICATION_FAILED))
    assert main(["probe", "yes", "--json"]) == ExitCode.VERIFICATION_FAILED
    assert json.loads(capsys.readouterr().out) == {"ok": False}


def test_an_error_says_what_happened_and_what_to_do_next(
    probe: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    probe(_raising(InvalidInput("the moon is full", advice="Wait two weeks.")))
    assert main(["probe", "yes"]) == ExitCode.INVALID_INPUT
    assert capsys.readouterr() == (
        "",
        "soci-pipeline: the moon is full\n  next: Wait two weeks.\n  more: soci-pipeline explain InvalidInput\n",
    )


def test_with_json_an_error_is_one_object_too(probe: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    probe(_raising(InvalidInput("the moon is full", advice="Wait two weeks.")))
    assert main(["probe", "yes", "--json"]) == ExitCode.INVALID_INPUT
    said = capsys.readouterr()
    assert json.loads(said.out) == {
        "error": "InvalidInput",
        "reason": "the moon is full",
        "advice": "Wait two weeks.",
        "exit_code": 3,
    }
    assert "the moon is full" in said.err


@pytest.mark.parametrize(
    ("words", "what", "right"),
    [
        (["puhs"], "No such command 'puhs'", "Did you mean 'push'?"),
        (["publish-everything"], "No such command 'publish-everything'", "'soci-pipeline --help'"),
        (["verify"], "Missing argument 'REFERENCE'", "'soci-pipeline verify --help'"),
        (["verify", "x:1", "--plainhttp"], "No such option '--plainhttp'", "Did you mean '--plain-http'?"),
        (["verify", "x:1", "--plain"], "No such option '--plain'", "Did you mean '--plain-http'?"),
        (["webhook", "serve", "--conf", "x"], "No such option '--conf'", "Did you mean one of: '--config', '--json'?"),
        (["prune", "x", "--keep-latest", "two"], "'--keep-latest': 'two'", "must be an integer of at least 0"),
        (["prune", "x", "--keep-latest", "two"], "'--keep-latest': 'two'", "'soci-pipeline prune --help'"),
        (["index", "x:1", "--suffix"], "Option '--suffix' requires an argument", "'soci-pipeline index --help'"),
        (
            ["ztoc", "layer", "--output", "--quiet"],
            "'--output' requires an argument, not '--quiet'",
            "'soci-pipeline ztoc --help'",
        ),
        (["verify", "x:1", "--ca-file", "--jobs=3"], "not '--jobs=3'", "'soci-pipeline verify --help'"),
        (["convert", "a", "b", "--index-version", "v3"], "'--index-version': 'v3'", "not one of 'v1', 'v2'"),
        (["convert", "a", "b", "--span-size", "4 MB"], "'--span-size': '4 MB'", "such as 4194304 or 4MiB"),
        (
            ["convert", "a", "b", "--platform", "p", "--all-platforms"],
            "--all-platforms cannot",
            "'soci-pipeline convert",
        ),
        (
            ["convert", "a", "b", "--all-platforms", "--platform", "p"],
            "--all-platforms cannot",
            "'soci-pipeline convert",
        ),
        (["prune", "x", "--keep-days", "nan"], "'--keep-days': 'nan'", "is not a number of days from"),
        (["doctor", "--json=yes"], "Option '--json' does not take a value", "'soci-pipeline doctor --help'"),
        (["doctor", "--bogus"], "No such option '--bogus'", "'soci-pipeline doctor --help'"),
        (["convert", "a", "b", "--spansize", "5"], "No such option '--spansize'", "Did you mean '--span-size'?"),
        (["setup", ""], "unexpected extra argument ''", "'soci-pipeline setup --help'"),
        (["setup", " "], "unexpected extra argument ' '", "'soci-pipeline setup --help'"),
        (["setup", "a", "b"], "unexpected extra arguments 'a' 'b'", "'soci-pipeline setup --help'"),
        (["doctor", "a", "b"], "unexpected extra argument 'b'", "'soci-pipeline doctor --help'"),
        (["version"], "No such command 'version'", "Did you mean one of: '--version', 'verify'?"),
        (["webhook", "chekc"], "No such command 'chekc'", "Did you mean 'check'?"),
        (["registry", "server", "x"], "'server'", "is not 'serve'"),
        (["webhook", "serve"], "Missing option '--config'", "'soci-pipeline webhook serve --help'"),
    ],
)
def test_a_wrong_call_says_what_is_wrong_and_what_to_do_next(
    words: list[str], what: str, right: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == ExitCode.USAGE
    said = capsys.readouterr()
    assert said.out == ""
    # The usage is of the command that the hint leads to, an action's own included.
    hinted = re.search(r"^Try '(.*) --help' for help\.$", said.err, re.MULTILINE)
    assert hinted is not None
    assert said.err.startswith(f"Usage: {hinted[1]} ")
    assert what in said.err
    assert right in said.err
    assert main([*words, "--json"]) == ExitCode.USAGE
    answer = json.loads(capsys.readouterr().out)
    assert what in answer["reason"]
    assert answer["error"] == "UsageError"
    assert answer["advice"] == f"`{hinted[1]} --help` shows its arguments."
    assert answer["exit_code"] == ExitCode.USAGE


def test_a_value_may_begin_with_a_hyphen(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--suffix", "-soci"], ["--suffix=-soci"]):
        assert main(["index", "UPPER:1", *words]) == ExitCode.INVALID_INPUT
        assert "UPPER" in capsys.readouterr().err


def test_bad_input_without_advice_of_its_own_leads_to_the_help(
    probe: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    probe(_raising(InvalidInput("the moon is full")))
    assert main(["probe", "yes"]) == ExitCode.INVALID_INPUT
    assert capsys.readouterr().err.endswith(
        "next: `soci-pipeline probe --help` shows its arguments.\n  more: soci-pipeline explain InvalidInput\n"
    )


@pytest.mark.parametrize(
    ("number", "status"), [(errno.EACCES, ExitCode.INVALID_INPUT), (errno.ENOSPC, ExitCode.DISK_FULL)]
)
def test_what_the_system_refuses_about_a_file_is_no_traceback(
    number: int, status: ExitCode, probe: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    probe(_raising(OSError(number, os.strerror(number), "/srv/images")))
    assert main(["probe", "yes"]) == status
    assert f"/srv/images: {os.strerror(number)}" in capsys.readouterr().err


def test_a_reader_who_has_seen_enough_ends_the_command_quietly(tmp_path: Path) -> None:
    command = f"{sys.executable} -m soci_pipeline completion bash | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout in {"0\n", "141\n"}


def test_a_real_command_reports_bad_input_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(tmp_path), "registry.example.com/shop/web:1", "--json"]) == ExitCode.INVALID_INPUT
    answer = json.loads(capsys.readouterr().out)
    assert answer["error"] == "InvalidInput"
    assert "not an OCI image layout" in answer["reason"]


def test_an_interruption_has_the_shells_status(probe: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    probe(_raising(KeyboardInterrupt()))
    assert main(["probe", "yes"]) == INTERRUPTED
    assert capsys.readouterr() == ("", "interrupted\n")
    assert main(["probe", "yes", "--json"]) == INTERRUPTED
    assert json.loads(capsys.readouterr().out)["exit_code"] == INTERRUPTED


def test_an_interruption_while_the_command_is_still_being_imported_is_one_too(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_INTERRUPTS_THE_IMPORT)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "soci_pipeline", "inspect", "x:1", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (INTERRUPTED, "interrupted\n")
    assert json.loads(done.stdout)["exit_code"] == INTERRUPTED


@pytest.mark.parametrize(
    "words",
    [["doctor"], ["doctor", "--json"], ["completion", "bash"], ["--help"], ["--version"], ["convert", "--help"]],
)
def test_an_answer_that_standard_output_does_not_take_is_a_full_disk(words: list[str]) -> None:
    command = [sys.executable, "-m", "soci_pipeline", *words]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == ExitCode.DISK_FULL
    assert "soci-pipeline: standard output cannot be written: No space left on device\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_answer_of_which_a_file_takes_only_a_part_is_a_full_disk(tmp_path: Path, unbuffered: str) -> None:
    """The write that crosses a limit on file sizes takes fewer bytes and reports no error."""
    script = 'ulimit -f 1; exec "$@" > "$0"'
    words = [str(tmp_path / "answer"), sys.executable, "-m", "soci_pipeline", "convert", "--help"]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        ["bash", "-c", script, *words], check=False, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert done.returncode == ExitCode.DISK_FULL
    assert "soci-pipeline: standard output cannot be written: File too large\n" in done.stderr


@pytest.mark.parametrize(("words", "status"), [("--version", 0), ("completion bash", 0), ("inspect UPPER:1", 3)])
def test_a_closed_standard_output_changes_no_exit_status(words: str, status: int) -> None:
    command = f"{sys.executable} -m soci_pipeline {words} >&-"
    done = subprocess.run(["bash", "-c", command], check=False, stderr=subprocess.PIPE, text=True)
    assert done.returncode == status
    assert "Traceback" not in done.stderr


def test_an_error_of_the_program_itself_is_not_hidden(probe: Callable[..., None]) -> None:
    """A traceback is what a bug report needs."""
    probe(_raising(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        main(["probe", "yes"])


def test_progress_goes_to_the_log_and_more_of_it_with_verbose(
    probe: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    def run(arguments: Arguments) -> CommandResult:
        logger().info("a step")
        logger().debug("a detail")
        return CommandResult()

    probe(run)
    main(["probe", "yes"])
    assert caplog.messages == ["a step"]
    caplog.clear()
    main(["probe", "yes", "--verbose"])
    assert caplog.messages == ["a step", "a detail"]
    caplog.clear()
    main(["probe", "yes", "--quiet"])
    assert caplog.messages == []


@pytest.mark.parametrize("words", [[], ["--json"], ["publish"], ["--unheard-of"]])
def test_a_call_without_a_known_command_shows_the_commands(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = main(words)
    except SystemExit as ended:
        status = ended.code
    said = capsys.readouterr()
    assert status == ExitCode.USAGE
    assert said.out == ""
    assert "Usage: soci-pipeline" in said.err


def test_the_overview_lists_every_command_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    lines = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert {f"{name} {text}" for name, (_, text) in COMMANDS.items()} <= lines


@pytest.mark.parametrize(
    "program", [["-m", "soci_pipeline"], ["-c", "from soci_pipeline.__main__ import entry; entry()"]]
)
def test_the_program_tells_its_version(program: list[str]) -> None:
    done = subprocess.run([sys.executable, *program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"soci-pipeline {__version__}\n"


def test_the_exit_status_reaches_the_shell(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "soci_pipeline", "push", str(tmp_path), "registry.example.com/shop/web"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.INVALID_INPUT
    assert done.stdout == ""
    assert done.stderr.startswith("soci-pipeline: ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_commands_help_lists_its_exit_statuses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = _help_of(name, capsys)
    assert text.startswith(f"Usage: soci-pipeline {name} ")
    statuses = _statuses(text)
    assert 0 in statuses
    assert len(statuses) > 1 or statuses == {0}
    unknown = statuses - {int(code) for code in ExitCode} - {INTERRUPTED}
    assert unknown == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_json_verbose_and_quiet(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = _help_of(name, capsys)
    assert all(option in text for option in ("--json", "--verbose", "--quiet"))


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("ztoc", "--span-size BYTES of uncompressed layer between two checkpoints [default: 4194304]"),
        ("ztoc", "--output FILE the file for the zTOC [required]"),
        ("convert", "--index-version [v1|v2] of the SOCI index [default: v2]"),
        ("index", "--verify [sample|all|off]"),
        ("registry", "--port PORT the port; 0 chooses a free one [default: 5000]"),
        ("join", "DIGEST... an image of the same repository, as `push` and `inspect` show it"),
        ("index", "--dry-run fetch and write nothing; show what would be done --"),
        ("prune", "--keep PATTERN tags to keep, with * and ?; may be repeated --"),
    ],
)
def test_the_help_of_a_command_shows_values_choices_and_defaults(
    name: str, row: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert row in " ".join(_help_of(name, capsys).split())


@pytest.mark.parametrize(("name", "action"), [("webhook", "check"), ("webhook", "serve")])
def test_an_actions_help_leads_to_the_exit_statuses(name: str, action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, action, "--help"])
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: soci-pipeline {name} {action} ")
    assert f"Exit statuses: see `soci-pipeline {name} --help`." in text
    assert all(option in text for option in ("--json", "--verbose", "--quiet"))


def _statuses(text: str) -> set[int]:
    """The numbers of the paragraph ``Exit statuses: 0 done; 3 …; 10 to 12 …``."""
    found = re.search(r"^ *Exit statuses: (.*?)(?:\n\s*\n|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, "the help has no paragraph that begins with 'Exit statuses: '"
    numbers: set[int] = set()
    for clause in " ".join(found[1].split()).split("; "):
        matched = re.match(r"(\d+)(?: to (\d+)|(?:, \d+)* and (\d+))?\b", clause)
        assert matched is not None, f"the clause {clause!r} begins with no status"
        first, last = int(matched[1]), int(matched[2] or matched[1])
        numbers |= {*range(first, last + 1), *map(int, re.findall(r"\d+", matched[0]))}
    return numbers


def test_every_error_has_the_exit_code_of_its_kind() -> None:
    kinds = _all_subclasses(SociPipelineError)
    assert all(kind.exit_code is not ExitCode.OK for kind in kinds)
    shared = {ExitCode.UNEXPECTED, ExitCode.USAGE, ExitCode.OK}
    # Each code stands for one class that is defined with the codes; finer ones elsewhere inherit theirs.
    first = [kind.exit_code for kind in kinds if kind.__module__ == "soci_pipeline.errors"]
    assert len(first) == len(set(first))
    assert not shared & set(first)


def test_the_readmes_table_names_exactly_the_commands() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    table = readme.split("| command | does |", 1)[1].split("\n\n", 1)[0]
    named = [name.split()[0] for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert sorted(named) == sorted(COMMANDS)


@pytest.mark.parametrize("page", ["README.md", "docs/get-started.md", "docs/commands.md"])
def test_every_command_in_the_examples_of_a_page_exists(page: str) -> None:
    blocks = re.findall(r"^```console\n(.*?)^```", (REPOSITORY / page).read_text(), re.MULTILINE | re.DOTALL)
    used = {name for block in blocks for name in re.findall(r"^(?:\.venv/bin/)?soci-pipeline (\S+)", block, re.M)}
    assert used
    assert used <= set(COMMANDS)


def test_the_command_imports_only_what_the_chosen_command_needs() -> None:
    """`soci-pipeline --help` is quick, and the library works without the orchestrator."""
    program = "import sys; from soci_pipeline import cli; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not {"prefect", "boto3", "docker", "starlette", "httpx", "rich", "pydantic"} & loaded
    commands = {f"soci_pipeline.commands.{place.partition(':')[0]}" for place, _ in COMMANDS.values()}
    assert not commands & set(done.stdout.split())


def test_only_the_entry_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["soci-pipeline"])
    with pytest.raises(SystemExit) as ended:
        cli.entry()
    assert ended.value.code == ExitCode.USAGE


def test_what_others_put_into_an_answer_a_log_or_an_error_changes_no_terminal(
    probe: Callable[[Callable[[Arguments], CommandResult]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    hostile, shown = "\x1b]0;title\x07\x1b[31m\udcff", r"\x1b]0;title\x07"

    def run(arguments: Arguments) -> CommandResult:
        logger().warning("log %s", hostile)
        if arguments.word == "fail":
            raise InvalidInput(f"reason {hostile}", advice=f"advice {hostile}")
        return CommandResult(text=f"text {hostile}\n")

    probe(run)
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        main(["probe", "fail"])
        main(["probe", "answer"])
    finally:
        root.handlers = handlers
    found = capsys.readouterr()
    assert "\x1b" not in found.out + found.err
    for word in ("log", "reason", "advice"):
        assert f"{word} {shown}" in found.err
    assert f"text {shown}\\udcff" in found.out
