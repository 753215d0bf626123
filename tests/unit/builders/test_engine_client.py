"""Connecting to an engine; what one answers is tested where it is asked."""

from pathlib import Path

import pytest

from soci_pipeline.builders.engine_client import DEFAULT_HOST, docker_host, engine_client, engine_unavailable
from soci_pipeline.errors import EngineUnavailable
from soci_pipeline.project import HOME, project_folder


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("env", "host"),
    [({}, DEFAULT_HOST), ({"DOCKER_HOST": ""}, DEFAULT_HOST), ({"DOCKER_HOST": "tcp://a:1"}, "tcp://a:1")],
)
def test_docker_host_names_the_engine_and_else_it_is_at_the_usual_socket(env: dict[str, str], host: str) -> None:
    assert docker_host(env) == host


@pytest.mark.parametrize(
    ("env", "place", "advice"),
    [
        ({}, f"{DEFAULT_HOST} (DOCKER_HOST is not set)", "Start the engine, or set DOCKER_HOST."),
        ({"DOCKER_HOST": "tcp://me:secret@a:1"}, "tcp://a:1 (from DOCKER_HOST)", "or correct DOCKER_HOST"),
    ],
)
def test_an_engine_that_does_not_answer_is_named_by_what_was_tried_and_where_it_comes_from(
    env: dict[str, str], place: str, advice: str
) -> None:
    error = engine_unavailable(env, "refused")
    assert error.reason == f"no Docker engine answers at {place}: refused"
    assert advice in str(error.advice)


@pytest.mark.parametrize("host", [{}, {"DOCKER_HOST": "tcp://a:1"}])
def test_the_next_step_names_the_command_for_a_private_engine_only_in_a_checkout_that_has_it(
    host: dict[str, str], tmp_path: Path
) -> None:
    checkout = project_folder()
    advice = str(engine_unavailable({**host, HOME: str(checkout)}).advice)
    assert f"`python -m local_stack engine` in {checkout}." in advice

    assert "local_stack" not in str(engine_unavailable({**host, HOME: str(tmp_path)}).advice)
    (tmp_path / "flows").mkdir()
    (tmp_path / "prefect.yaml").touch()
    assert "local_stack" not in str(engine_unavailable({**host, HOME: str(tmp_path)}).advice)


def test_where_no_engine_answers_no_socket_is_left_open(tmp_path: Path) -> None:
    before = _open_files()
    with (
        pytest.raises(
            EngineUnavailable,
            match=r"engine answers at unix://\S+/none\.sock \(from DOCKER_HOST\): .*No such file",
        ),
        engine_client({"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}, timeout=5),
    ):
        pytest.fail("nobody is there")
    assert _open_files() == before
