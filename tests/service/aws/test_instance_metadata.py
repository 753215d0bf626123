"""The instance metadata service, against one on loopback that insists on version 2."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from soci_pipeline.aws.client import AwsRefused, AwsUnreachable
from soci_pipeline.aws.instance_metadata import VARIABLE, InstanceMetadata
from soci_pipeline.local.ports import free_port
from tests.support.capacity import INSTANCE, MetadataService, metadata_service


@pytest.fixture
def service() -> Iterator[MetadataService]:
    with metadata_service() as server:
        yield server


@pytest.fixture
def metadata(service: MetadataService) -> Iterator[InstanceMetadata]:
    with InstanceMetadata(service.url) as client:
        yield client


def test_an_instance_knows_its_id_and_asks_for_one_token(service: MetadataService, metadata: InstanceMetadata) -> None:
    assert metadata.instance_id() == INSTANCE
    assert metadata.instance_id() == INSTANCE
    assert len(service.tokens) == 1


def test_the_address_of_the_aws_sdks_counts(service: MetadataService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, service.url)
    with InstanceMetadata() as client:
        assert client.instance_id() == INSTANCE


def test_a_token_that_the_service_has_forgotten_is_asked_for_again(
    service: MetadataService, metadata: InstanceMetadata
) -> None:
    metadata.instance_id()
    service.tokens.append("another")
    assert metadata.instance_id() == INSTANCE
    assert len(service.tokens) == 3


def test_an_interruption_is_none_until_it_is_announced(service: MetadataService, metadata: InstanceMetadata) -> None:
    assert metadata.interruption() is None
    service.interrupt()
    found = metadata.interruption()
    assert found is not None
    assert (found.action, found.time) == ("terminate", datetime(2026, 11, 26, 10, tzinfo=UTC))


def test_an_instance_that_its_group_ends_is_taken_back(service: MetadataService, metadata: InstanceMetadata) -> None:
    assert not metadata.taken_back()
    service.answers["autoscaling/target-lifecycle-state"] = "InService"
    assert not metadata.taken_back()
    service.answers["autoscaling/target-lifecycle-state"] = "Terminated"
    assert metadata.taken_back()


@pytest.mark.parametrize(("status", "temporary"), [(403, False), (429, True), (503, True)])
def test_a_refusal_says_whether_to_ask_again(
    service: MetadataService, metadata: InstanceMetadata, status: int, temporary: bool
) -> None:
    metadata.instance_id()
    service.broken = status
    with pytest.raises(AwsRefused) as caught:
        metadata.interruption()
    assert caught.value.temporary is temporary
    assert (caught.value.advice is None) is temporary


@pytest.mark.parametrize("text", ["", "<html>", '{"action": "terminate"}'])
def test_an_announcement_that_cannot_be_read_is_no_silence(
    service: MetadataService, metadata: InstanceMetadata, text: str
) -> None:
    service.answers["spot/instance-action"] = text
    with pytest.raises(AwsRefused, match="instance-action"):
        metadata.interruption()


def test_something_else_at_that_address_is_no_instance(service: MetadataService, metadata: InstanceMetadata) -> None:
    service.answers["instance-id"] = "a login page"
    with pytest.raises(AwsRefused, match="names no instance"):
        metadata.instance_id()


def test_elsewhere_than_on_ec2_nothing_answers() -> None:
    with InstanceMetadata(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(AwsUnreachable):
        client.instance_id()
