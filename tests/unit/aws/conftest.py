"""Credentials that nobody checks, and an emulated account that each test finds empty."""

from collections.abc import Iterator

import pytest

from tests.support.aws import emulator, give_credentials, reset


@pytest.fixture(scope="session")
def emulated_account() -> Iterator[str]:
    with emulator() as address:
        yield address


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    give_credentials(monkeypatch)


@pytest.fixture
def aws(emulated_account: str, credentials: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the emulated AWS, which is also where boto3 finds every service."""
    reset(emulated_account)
    monkeypatch.setenv("AWS_ENDPOINT_URL", emulated_account)
    return emulated_account
