"""What a command shows of its progress: bars in a terminal, few lines elsewhere, and nothing that nobody asked for."""

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from soci_pipeline.commands.progress_display import LineDisplay, draws_bars, progress_line, progress_shown
from soci_pipeline.progress import DISPLAY, MeasuredReader, meter, shown_by
from soci_pipeline.registry.server import serving
from tests.support.images import index_layout
from tests.support.meters import RecordingDisplay

_ESCAPE = re.compile(r"\x1b\[")
_COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3[0-8]|9[0-7])[0-9;]*m")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with serving(tmp_path / "registry") as address:
        yield address


def _in_a_terminal(command: list[str], **environment: str) -> tuple[str, str]:
    """Run a command whose standard error alone is a terminal; returns its standard output and what was drawn."""
    try:
        ours, theirs = pty.openpty()
    except OSError as error:
        pytest.skip(f"there are no pseudo-terminals here, as in a chroot without devpts: {error}")
    given = {name: value for name, value in os.environ.items() if name not in {"CI", "NO_COLOR", "TERM"}}
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, text=True, env=given | {"TERM": "xterm-256color"} | environment
    )
    os.close(theirs)
    drawn = b""
    # Linux answers EIO once the other side is closed.
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 65536):
            drawn += piece
    os.close(ours)
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 0, drawn.decode()
    return out, drawn.decode()


def _push(layout: Path, address: str) -> list[str]:
    return [sys.executable, "-m", "soci_pipeline", "push", str(layout), f"{address}/team/app:v1", "--json"]


def test_a_push_in_a_terminal_draws_a_bar_with_bytes_and_a_rate(tmp_path: Path, address: str) -> None:
    layout = index_layout(tmp_path / "layout").path
    answer, drawn = _in_a_terminal(_push(layout, address))
    assert answer.startswith("{")
    assert _COLOUR.search(drawn)
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn))
    last = [line for line in lines if line.strip()][-1]
    assert re.search(r"push +\S+ +[\d.]+/[\d.]+ (KiB|MiB|bytes) +[\d.]+ (B|KiB|MiB)/s", last), last


def test_without_colours_the_bar_has_none(tmp_path: Path, address: str) -> None:
    layout = index_layout(tmp_path / "layout").path
    _, drawn = _in_a_terminal(_push(layout, address), NO_COLOR="1")
    assert "push" in drawn
    assert not _COLOUR.search(drawn)


@pytest.mark.parametrize("environment", [{"CI": "true"}, {"TERM": "dumb"}])
def test_in_ci_and_in_a_dumb_terminal_nothing_is_drawn(
    tmp_path: Path, address: str, environment: Mapping[str, str]
) -> None:
    layout = index_layout(tmp_path / "layout").path
    _, drawn = _in_a_terminal(_push(layout, address), **environment)
    assert not _ESCAPE.search(drawn)


def test_what_is_printed_stays_whole_and_a_bar_that_is_done_stays_above_what_follows() -> None:
    script = (
        "import sys\n"
        "from soci_pipeline.commands.progress_display import progress_shown\n"
        "from soci_pipeline.progress import meter\n"
        "with progress_shown():\n"
        "    with meter('push', 10) as advance:\n"
        "        print('docker pull ' + 'x' * 300, file=sys.stderr)\n"
        "        advance(10)\n"
        "    print('the stack stays up', file=sys.stderr)\n"
        "    with meter('verify', 10) as advance:\n"
        "        advance(10)\n"
    )
    _, drawn = _in_a_terminal([sys.executable, "-c", script], COLUMNS="80")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)
    assert "docker pull " + "x" * 300 in plain
    after = plain.partition("the stack stays up")[2]
    assert "push" not in after
    assert "verify" in after


def test_quiet_draws_nothing_even_in_a_terminal(tmp_path: Path, address: str) -> None:
    layout = index_layout(tmp_path / "layout").path
    _, drawn = _in_a_terminal([*_push(layout, address), "--quiet"])
    assert drawn == ""


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "drawn"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "CI": "false"}, True),
        ({"TERM": "xterm", "CI": "true"}, False),
        ({"TERM": "xterm", "CI": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_bars_are_for_terminals_that_somebody_looks_at(environment: Mapping[str, str], drawn: bool) -> None:
    assert draws_bars(_Terminal(), environment) is drawn
    assert draws_bars(io.StringIO(), environment) is False


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_every_few_seconds_and_not_for_what_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    clock = _Clock()
    with LineDisplay(seconds=5, clock=clock).meter("push", 4 << 20) as advance:
        for _ in range(8):
            clock.now += 2
            advance(1 << 19)
    with LineDisplay(seconds=5, clock=clock).meter("index", None) as advance:
        advance(1)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "push: 1.5 MiB of 4.0 MiB (37 %), 256.0 KiB/s",
        "push: 3.0 MiB of 4.0 MiB (75 %), 256.0 KiB/s",
    ]


def test_a_step_of_unknown_length_has_no_share() -> None:
    assert progress_line("verify", 5 << 29, None, 2.0) == "verify: 2.5 GiB, 1.2 GiB/s"
    assert progress_line("verify", 0, 0, 0.0) == "verify: 0 B of 0 B (0 %), 0 B/s"


def test_nothing_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    assert DISPLAY.get() is None
    with meter("push", 10) as advance:
        advance(10)
    with progress_shown(quiet=True), meter("push", 10) as advance:
        advance(10)
    assert capsys.readouterr() == ("", "")


def test_a_display_is_for_its_block_alone() -> None:
    display = RecordingDisplay()
    with shown_by(display), meter("import", 7) as advance:
        assert MeasuredReader(io.BytesIO(b"1234567"), advance).read() == b"1234567"
    with meter("import", 7) as advance:
        advance(7)
    assert [(each.step, each.total, each.done, each.ended) for each in display.steps] == [("import", 7, 7, True)]
