"""One Prefect server and one emulated AWS for all tests of this tier, whichever process runs them."""

from collections.abc import Iterator

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from soci_pipeline.local.prefect_server import PrefectServer, prefect_server
from tests.support.aws import REGION, emulator, give_credentials, reset
from tests.support.once_per_run import OncePerRun


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A module stays in one process, and so do all tests of the one AWS account: each empties it."""
    for item in items:
        account = "emulated_account" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("aws" if account else item.path.stem))


@pytest.fixture(scope="session")
def prefect_home(once_per_run: OncePerRun) -> PrefectServer:
    """The run's Prefect server; only `prefect` makes this process speak to it."""
    return once_per_run.get("prefect", prefect_server)


@pytest.fixture(scope="session")
def prefect(prefect_home: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """The run's Prefect server, which every flow and client of this process speaks to."""
    own = tmp_path_factory.mktemp("prefect-home")
    with temporary_settings({PREFECT_API_URL: prefect_home.api_url, PREFECT_HOME: own}):
        yield prefect_home


@pytest.fixture(scope="session")
def emulated_account(once_per_run: OncePerRun) -> str:
    """The address of an emulated AWS, with what earlier tests have left in it."""
    return once_per_run.get("aws", emulator)


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
