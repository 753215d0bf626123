"""Waiting for a program that was started."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack.ports import LOOPBACK, answers, free_port, listens, wait_until
from soci_pipeline.errors import StackError


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        yield child
        child.kill()


def test_a_free_port_can_be_listened_on() -> None:
    port = free_port()
    assert not listens(port)
    with socket.create_server((LOOPBACK, port)):
        assert listens(port)


def test_a_port_without_a_server_does_not_answer() -> None:
    assert not answers(f"http://{LOOPBACK}:{free_port()}/")


def test_a_program_that_ends_while_starting_is_reported_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("first\nno such option\n")
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
        with pytest.raises(StackError, match=r"(?s)the thing ended while starting.*no such option") as caught:
            wait_until(lambda: False, what="the thing", child=child, log=tmp_path / "log", seconds=5)
    assert str(tmp_path / "log") in str(caught.value.advice)


def test_a_program_that_never_answers_is_reported_after_the_time(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]"
) -> None:
    with pytest.raises(StackError, match=r"the thing was not ready within 0\.3 s"):
        wait_until(lambda: False, what="the thing", child=sleeper, log=tmp_path / "none", seconds=0.3)


def test_waiting_ends_as_soon_as_it_answers(tmp_path: Path, sleeper: "subprocess.Popen[bytes]") -> None:
    states = iter([False, True])
    wait_until(lambda: next(states), what="the thing", child=sleeper, log=tmp_path / "none", seconds=30)


def test_what_it_answers_with_is_handed_on(tmp_path: Path, sleeper: "subprocess.Popen[bytes]") -> None:
    answers = iter([None, "28.0.1"])
    found = wait_until(lambda: next(answers), what="the thing", child=sleeper, log=tmp_path / "none", seconds=30)
    assert found == "28.0.1"
