"""How a Prefect server is started: at home in its folder, and with nothing of the machine's own settings."""

import os
from pathlib import Path

import pytest

from local_stack.ports import answers
from local_stack.prefect_server import client_environment, database_of, prefect_server
from soci_pipeline.errors import StackError
from tests.support.prefect_command import PrefectCommand


@pytest.fixture
def command(tmp_path: Path) -> PrefectCommand:
    return PrefectCommand.write(tmp_path / "packages")


def test_it_listens_on_loopback_alone_is_at_home_in_its_folder_and_ends_with_the_block(
    tmp_path: Path, command: PrefectCommand
) -> None:
    given = command.env | {"PREFECT_API_KEY": "pnu_of_the_user", "PREFECT_PROFILE": "cloud", "PATH": os.defpath}
    with prefect_server(tmp_path / "server", env=given) as server:
        assert answers(f"{server.api_url}/health")
        assert server.api_url == f"{server.ui_url}/api"
    assert not answers(f"{server.api_url}/health")
    note = command.started()
    env = note["env"]
    assert note["argv"] == ["server", "start"]
    assert env["PREFECT_SERVER_API_HOST"] == "127.0.0.1"
    assert Path(env["PREFECT_HOME"]).is_relative_to(tmp_path / "server")
    assert env["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert "PREFECT_API_DATABASE_CONNECTION_URL" not in env
    assert not {"PREFECT_API_KEY", "PREFECT_PROFILE"} & (set(env) | set(server.env))
    assert server.env["PREFECT_API_URL"] == server.api_url


def test_its_database_is_readable_by_its_user_alone(tmp_path: Path, command: PrefectCommand) -> None:
    deployed = tmp_path / "deployed.db"
    deployed.write_bytes(b"rows")
    deployed.chmod(0o644)
    for folder, source in (("new", None), ("copied", deployed)):
        with prefect_server(tmp_path / folder, env=command.env, deployed=source) as server:
            database = database_of(Path(server.env["PREFECT_HOME"]))
            assert database.stat().st_mode & 0o777 == 0o600
            assert database.read_bytes() == (b"" if source is None else b"rows")


def test_the_database_is_told_to_the_server_and_to_nobody_else(tmp_path: Path, command: PrefectCommand) -> None:
    url = "postgresql+asyncpg://prefect@/postgres?host=%2Frun%2Fx"
    with prefect_server(tmp_path / "server", env=command.env, database=url) as server:
        assert command.started()["env"]["PREFECT_API_DATABASE_CONNECTION_URL"] == url
    assert url not in server.env.values()


def test_a_server_that_does_not_come_up_is_shown_with_the_last_lines_of_its_log(
    tmp_path: Path, command: PrefectCommand
) -> None:
    command.fail("ImportError: no module named fastapi.routing")
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "server.log").write_text("of the time before\n")
    with (
        pytest.raises(StackError, match=r"(?s)the Prefect server ended while starting.*fastapi\.routing") as caught,
        prefect_server(tmp_path / "server", env=command.env),
    ):
        pytest.fail("nothing serves")
    assert "of the time before" not in caught.value.reason


def test_a_client_keeps_what_it_needs_of_its_environment_and_nothing_of_prefects(tmp_path: Path) -> None:
    given = {"PATH": "/bin", "PREFECT_API_AUTH_STRING": "admin:pass", "PREFECT_LOGGING_LEVEL": "DEBUG"}
    env = client_environment("http://127.0.0.1:1/api", tmp_path / "home", env=given)
    assert env["PATH"] == "/bin"
    assert env["PREFECT_HOME"] == str(tmp_path / "home")
    assert not {"PREFECT_API_AUTH_STRING", "PREFECT_LOGGING_LEVEL"} & set(env)
