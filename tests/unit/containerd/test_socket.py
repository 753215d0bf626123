import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from soci_pipeline.containerd.socket import find_socket
from soci_pipeline.errors import EngineUnavailable


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "exec" / "containerd" / "containerd.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield path


def test_the_address_that_is_given_comes_first(listening: Path, tmp_path: Path) -> None:
    assert find_socket(listening, env={"CONTAINERD_ADDRESS": str(tmp_path / "other")}) == listening


@pytest.mark.parametrize("prefix", ["", "unix://"])
def test_the_environment_names_it(listening: Path, prefix: str) -> None:
    assert find_socket(env={"CONTAINERD_ADDRESS": f"{prefix}{listening}"}, usual=()) == listening


def test_it_is_found_at_a_usual_place(listening: Path, tmp_path: Path) -> None:
    assert find_socket(env={}, usual=[tmp_path / "nothing", listening]) == listening


def test_it_is_found_under_the_docker_engine(listening: Path, tmp_path: Path) -> None:
    assert find_socket(env={"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}, usual=()) == listening


def test_a_named_socket_that_does_not_answer_is_never_passed_over(listening: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="No such file"):
        find_socket(env={"CONTAINERD_ADDRESS": str(tmp_path / "nothing")}, usual=[listening])


def test_where_none_answers_every_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file.sock").touch()
    with pytest.raises(EngineUnavailable) as caught:
        find_socket(env={"DOCKER_HOST": "tcp://host:2375"}, usual=[tmp_path / "nothing.sock", tmp_path / "file.sock"])
    assert "nothing.sock (No such file or directory)" in str(caught.value)
    assert "file.sock (Connection refused)" in str(caught.value)
    assert "CONTAINERD_ADDRESS" in str(caught.value)


def test_a_path_too_long_for_a_socket_is_no_crash(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable):
        find_socket(tmp_path / ("x" * 200))
