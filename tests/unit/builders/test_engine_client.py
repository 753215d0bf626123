"""Connecting to an engine; what one answers is tested where it is asked."""

from pathlib import Path

import pytest

from soci_pipeline.builders.engine_client import DEFAULT_HOST, docker_host, engine_client
from soci_pipeline.errors import EngineUnavailable


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("env", "host"),
    [({}, DEFAULT_HOST), ({"DOCKER_HOST": ""}, DEFAULT_HOST), ({"DOCKER_HOST": "tcp://a:1"}, "tcp://a:1")],
)
def test_docker_host_names_the_engine_and_else_it_is_at_the_usual_socket(env: dict[str, str], host: str) -> None:
    assert docker_host(env) == host


def test_where_no_engine_answers_no_socket_is_left_open(tmp_path: Path) -> None:
    before = _open_files()
    with (
        pytest.raises(EngineUnavailable, match=r"the Docker engine does not answer: .*No such file"),
        engine_client({"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}, timeout=5),
    ):
        pytest.fail("nobody is there")
    assert _open_files() == before
