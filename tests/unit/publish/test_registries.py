"""What is known of a registry before a build: that it answers, that it takes pushes, and how it is spoken to."""

import socket
import time
from pathlib import Path

import pytest

from soci_pipeline.errors import CredentialsRefused
from soci_pipeline.publish import registries
from soci_pipeline.publish.registries import check_answers, check_push, connect, connection_to, prepare
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import RegistryUnreachable
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.registry.server import ServerSettings
from soci_pipeline.registry.tag_mutability import TagMutability
from soci_pipeline.settings import RegistrySettings, Settings
from tests.support.certificates import certificate
from tests.support.deviations import RejectsThePing
from tests.support.faults import Fault, Kind
from tests.support.registries import CREDENTIALS, LOGIN, QUICK, REPOSITORY, registry
from tests.support.strange import strange


def test_a_registry_that_takes_pushes_is_left_as_it_was(tmp_path: Path) -> None:
    with registry(tmp_path) as client:
        check_push(client, REPOSITORY)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == 32] == []


def test_a_registry_without_our_credentials_is_refused_before_a_build(tmp_path: Path) -> None:
    with registry(tmp_path, server=ServerSettings(login=LOGIN)) as client, pytest.raises(CredentialsRefused):
        check_push(client, REPOSITORY)
    with registry(tmp_path, server=ServerSettings(login=LOGIN), credentials=CREDENTIALS) as client:
        check_push(client, REPOSITORY)


def test_a_registry_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registries, "ClientSettings", lambda: QUICK)
    image = ImageReference.parse("127.0.0.1:1/team/app")
    with connect(image, Settings()) as client, pytest.raises(RegistryUnreachable, match=r"127\.0\.0\.1:1"):
        check_push(client, image.repository)


def test_a_closed_port_is_reported_after_one_short_retry_with_the_next_step(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(RegistryUnreachable, match=f"no registry answers at 127.0.0.1:{port}: ") as caught:
        check_answers(ImageReference.parse(f"127.0.0.1:{port}/team/app"), Settings())
    assert time.monotonic() - begun < 3
    assert sum(message.startswith("trying again") for message in caplog.messages) <= 1
    assert f"Start a registry on 127.0.0.1:{port}" in str(caught.value.advice)
    # A caller that retries what is temporary does not start again.
    assert not caught.value.temporary


@pytest.mark.parametrize(
    "fault",
    [Fault("GET", r"/v2/\Z", kind=Kind.RESET), Fault("GET", r"/v2/\Z", times=9), Fault("GET", r"/v2/\Z", status=401)],
    ids=["reset once", "status 503", "status 401"],
)
def test_a_registry_that_answers_with_an_error_or_at_the_second_attempt_is_left_to_the_patient_check(
    fault: Fault, tmp_path: Path
) -> None:
    with registry(tmp_path, faults=[fault]) as client:
        check_answers(ImageReference.parse(f"{client.registry}/{REPOSITORY}"), Settings())


def test_a_registry_on_loopback_that_expects_tls_is_reported_with_the_advice_for_that(tmp_path: Path) -> None:
    with (
        strange(RejectsThePing().answer, tls=certificate(tmp_path, "127.0.0.1")) as address,
        pytest.raises(RegistryUnreachable, match=f"no registry answers at {address}") as caught,
    ):
        check_answers(ImageReference.parse(f"{address}/team/app"), Settings())
    assert caught.value.advice == RegistryUnreachable.plain_advice


def test_registries_other_than_ecr_let_every_tag_move() -> None:
    assert prepare(ImageReference.parse("registry.example.com/app"), Settings()) == TagMutability()


@pytest.mark.parametrize(
    ("registry", "settings", "plain"),
    [
        ("127.0.0.1:5000", RegistrySettings(), True),
        ("127.0.0.1:5000", RegistrySettings(ca_file=Path("/ca.pem")), False),
        ("registry.example.com", RegistrySettings(), False),
        ("registry.example.com", RegistrySettings(plain_http=("registry.example.com",)), True),
    ],
)
def test_programs_are_told_of_plain_http_exactly_where_the_client_speaks_it(
    registry: str, settings: RegistrySettings, plain: bool, tmp_path: Path
) -> None:
    if settings.ca_file is not None:
        authority = certificate(tmp_path, "127.0.0.1").certificate
        settings = settings.model_copy(update={"ca_file": authority})
    image = ImageReference.parse(f"{registry}/team/app")
    way = connection_to(image, Settings(registry=settings))
    with connect(image, Settings(registry=settings)) as client:
        assert client._transport.base.scheme == ("http" if plain else "https")
    assert (way.plain_http, way.ca_file) == (plain, settings.ca_file)


@pytest.mark.parametrize(
    ("host", "ecr"),
    [
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", True),
        ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", True),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", True),
        ("123456789012.dkr-ecr.eu-central-1.on.aws", True),
        ("123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn", True),
        ("123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu", True),
        ("123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov", True),
        ("public.ecr.aws", True),
        ("registry.example.com", False),
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com.example.com", False),
    ],
)
def test_parts_for_ecr_are_within_its_limits(host: str, ecr: bool) -> None:
    with connect(ImageReference.parse(f"{host}/team/app"), Settings()) as client:
        assert (5 << 20 <= client.settings.part_size <= 10 << 20) is ecr


@pytest.mark.parametrize(
    ("text", "size", "for_ecr"),
    [("4MiB", 4 << 20, 5 << 20), ("8388608", 8 << 20, 8 << 20), ("1GiB", 1 << 30, 10 << 20)],
)
def test_the_size_of_parts_is_a_setting(text: str, size: int, for_ecr: int) -> None:
    settings = Settings.from_environment({"SOCI_PIPELINE_REGISTRY_PART_SIZE": text})
    with connect(ImageReference.parse("ghcr.io/team/app"), settings) as client:
        assert client.settings.part_size == size
    with connect(ImageReference.parse("public.ecr.aws/team/app"), settings) as client:
        assert client.settings.part_size == for_ecr


def test_a_login_for_one_repository_that_may_not_read_the_base_url_is_enough() -> None:
    with strange(RejectsThePing().answer) as address, RegistryClient(address, settings=QUICK) as client:
        check_push(client, REPOSITORY)
        with pytest.raises(CredentialsRefused):
            client.ping()
