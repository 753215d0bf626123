"""One Prefect server and one emulated AWS for all tests of this tier."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prefect.context import refresh_global_settings_context
from pydantic import SecretStr

from local_stack.prefect_server import PrefectServer, client_environment, prefect_server
from soci_pipeline.registry.server import Login, ServerSettings, serving
from tests.support.aws import REGION, emulator, give_credentials, reset
from tests.support.ecr_name import EcrStart, named_as_ecr
from tests.support.once_per_run import OncePerRun


@pytest.fixture(scope="session")
def prefect(once_per_run: OncePerRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """The run's Prefect server, which every flow and client of this process speaks to."""
    server = once_per_run.get("prefect", prefect_server)
    settings = client_environment(server.api_url, tmp_path_factory.mktemp("prefect-home"), env={})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        # Below Prefect's client every connection that is refused is tried four times, for one and a half seconds.
        for kind in ("_sync", "_async"):
            patch.setattr(f"httpcore.{kind}.connection.RETRIES_BACKOFF_FACTOR", 0.0)
        # SQLite rejects some writes of busy clients at once, with a 503; Prefect's client then sleeps for 2 s or more.
        patch.setattr("prefect.client.base.clamped_poisson_interval", lambda *_: 0.1)
        # The thread that sends heartbeats delays the end of every flow run by up to a second.
        patch.delenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY")
        # Threads of Prefect's own have no other settings than these.
        refresh_global_settings_context()
        yield server
    refresh_global_settings_context()


@pytest.fixture(scope="session")
def emulated_account() -> Iterator[str]:
    """The address of an emulated AWS, as earlier tests have left it; one process has all tests that use it."""
    with emulator() as address:
        yield address


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS keys that nobody checks, in the environment."""
    give_credentials(monkeypatch)


@pytest.fixture
def aws(emulated_account: str, credentials: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the emulated AWS, now empty, which is also where boto3 finds every service."""
    reset(emulated_account)
    monkeypatch.setenv("AWS_ENDPOINT_URL", emulated_account)
    return emulated_account


@pytest.fixture
def shared_aws(emulated_account: str, credentials: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the emulated AWS with what others have left in it, in a default region."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ENDPOINT_URL", emulated_account)
    return emulated_account


@pytest.fixture
def ecr_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EcrStart]:
    """Starts a registry under ECR's name that requires a password of the user AWS."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker"))
    with ExitStack() as stack:

        def started(password: str) -> Path:
            settings = ServerSettings(login=Login("AWS", SecretStr(password)))
            address = stack.enter_context(serving(tmp_path / "registry", settings=settings))
            return stack.enter_context(named_as_ecr(address, tmp_path, monkeypatch))

        yield started
