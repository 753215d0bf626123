"""The queue against an emulated SQS: deleted once stored, left for the dead-letter queue where it makes no sense."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from soci_pipeline.errors import CredentialsRefused
from soci_pipeline.webhook.metrics import Metrics
from soci_pipeline.webhook.outbox import Outbox
from soci_pipeline.webhook.queue import QueuePoller
from soci_pipeline.webhook.receiver import Receiver
from soci_pipeline.webhook.service import serving
from soci_pipeline.webhook.sources.eventbridge import QueueSource
from tests.support import webhook as support
from tests.support.aws import unique

DIGEST = "sha256:" + "7f" * 32


@dataclass
class Rig:
    client: Any
    url: str
    dead: str
    outbox: Outbox
    metrics: Metrics
    poller: QueuePoller
    source: dict[str, Any]

    def send(self, document: Any) -> None:
        self.client.send_message(
            QueueUrl=self.url, MessageBody=document if isinstance(document, str) else json.dumps(document)
        )

    def waiting(self, url: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.client.get_queue_attributes(QueueUrl=url, AttributeNames=names)
        return sum(int(value) for value in answer["Attributes"].values())


@pytest.fixture
def rig(emulated_account: str, credentials: None, tmp_path: Path) -> Iterator[Rig]:
    client = boto3.client("sqs", region_name="eu-west-1", endpoint_url=emulated_account)
    name = unique("events")
    dead = client.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    arn = client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "2"})
    url = client.create_queue(QueueName=name, Attributes={"RedrivePolicy": redrive, "VisibilityTimeout": "0"})[
        "QueueUrl"
    ]
    source = {
        "kind": "sqs",
        "name": "aws",
        "queue_url": url,
        "region": "eu-west-1",
        "endpoint_url": emulated_account,
        "wait_s": 1,
    }
    push = support.rule(sources=["aws"], repositories=["shop"])
    image = {
        "name": "index",
        "sources": ["aws"],
        "on": "image",
        "repositories": ["123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/*"],
        "tags": ["*", "!*-soci"],
        "deployment": "index-image/index",
        "parameters": {"reference": "${reference}"},
    }
    configuration = support.configuration(tmp_path, sources=[source], rules=[push, image])
    queue = configuration.sources[0]
    assert isinstance(queue, QueueSource)
    with Outbox(configuration.outbox, busy_timeout_s=0.1) as outbox:
        metrics = Metrics()
        poller = QueuePoller(queue, Receiver(configuration, outbox, metrics), metrics)
        yield Rig(client, url, dead, outbox, metrics, poller, source)


def codecommit(**detail: Any) -> dict[str, Any]:
    fields = {
        "event": "referenceUpdated",
        "repositoryName": "shop",
        "referenceType": "branch",
        "referenceName": "main",
        "referenceFullName": "refs/heads/main",
        "commitId": support.COMMIT,
    }
    return _event("aws.codecommit", "CodeCommit Repository State Change", fields | detail)


def ecr_push(**detail: Any) -> dict[str, Any]:
    fields = {
        "result": "SUCCESS",
        "repository-name": "team/app",
        "image-digest": DIGEST,
        "action-type": "PUSH",
        "image-tag": "v1",
    }
    return _event("aws.ecr", "ECR Image Action", fields | detail)


def _event(source: str, kind: str, detail: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "13cde686",
        "detail-type": kind,
        "source": source,
        "account": "123456789012",
        "time": "2026-11-24T01:54:34Z",
        "region": "eu-west-1",
        "resources": [],
        "detail": detail,
    }


def test_a_push_to_codecommit_is_stored_and_its_message_deleted(rig: Rig) -> None:
    rig.send(codecommit())
    rig.poller.step()
    run = rig.outbox.claim()
    assert run is not None
    assert run.parameters["source"] == "https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/shop"
    assert rig.waiting(rig.url) == 0


def test_a_pushed_image_starts_its_indexing(rig: Rig) -> None:
    rig.send(ecr_push())
    rig.poller.step()
    run = rig.outbox.claim()
    assert run is not None
    assert run.deployment == "index-image/index"
    assert run.parameters == {"reference": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:v1"}


@pytest.mark.parametrize(
    "detail",
    [{"image-tag": ""}, {"image-tag": "v1-soci"}, {"image-tag": "sha256-" + "0" * 64}, {"result": "FAILURE"}],
)
def test_what_the_pipeline_itself_pushes_starts_nothing_and_is_deleted(rig: Rig, detail: dict[str, str]) -> None:
    rig.send(ecr_push(**detail))
    rig.poller.step()
    assert sum(rig.outbox.counts().values()) == 0
    assert rig.waiting(rig.url) == 0


def test_a_message_delivered_twice_is_one_event(rig: Rig) -> None:
    rig.send(codecommit())
    rig.send(codecommit())
    rig.poller.step()
    rig.poller.step()
    assert sum(rig.outbox.counts().values()) == 1
    assert rig.waiting(rig.url) == 0


@pytest.mark.parametrize("body", ["not valid JSON", "{}", json.dumps(codecommit(referenceFullName="refs/heads/$(id)"))])
def test_a_malformed_message_ends_in_the_dead_letter_queue(rig: Rig, body: str) -> None:
    rig.send(body)
    for _ in range(3):
        rig.poller.step()
    assert sum(rig.outbox.counts().values()) == 0
    assert (rig.waiting(rig.url), rig.waiting(rig.dead)) == (0, 1)
    assert rig.metrics.value("soci_webhook_queue_messages_total", source="aws", result="left") == 2


def test_a_message_is_kept_while_the_outbox_cannot_store_it(rig: Rig) -> None:
    import sqlite3

    path = rig.outbox._connection.execute("PRAGMA database_list").fetchone()[2]
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    rig.send(codecommit())
    assert rig.poller.step() > 0
    other.execute("ROLLBACK")
    other.close()
    assert rig.waiting(rig.url) == 1
    rig.poller.step()
    assert rig.outbox.counts()["pending"] == 1


def test_the_service_polls_its_queues(rig: Rig, tmp_path: Path) -> None:
    source = rig.source | {"name": "aws"}
    with support.fake_prefect() as prefect:
        rules = [support.rule(sources=["aws"], repositories=["shop"])]
        outbox = str(tmp_path / "another.sqlite3")
        settings = {"api_url": prefect.url}
        configuration = support.configuration(tmp_path, sources=[source], rules=rules, prefect=settings, outbox=outbox)
        rig.send(codecommit())
        with serving(configuration) as (_, service):
            support.until(lambda: len(prefect.runs) == 1, seconds=20)
            assert service.health()["threads"] == {"dispatch": True, "outcomes": True, "queue-aws": True}


def test_a_queue_that_is_gone_is_waited_for(rig: Rig) -> None:
    rig.client.delete_queue(QueueUrl=rig.url)
    assert rig.poller.step() > 0


def test_a_profile_of_aws_that_is_not_there_is_named_at_the_start(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    rules = [support.rule(sources=["aws"], repositories=["shop"])]
    configuration = support.configuration(tmp_path, sources=[rig.source], rules=rules)
    queue = configuration.sources[0]
    assert isinstance(queue, QueueSource)
    with pytest.raises(CredentialsRefused, match="nobody"):
        QueuePoller(queue, Receiver(configuration, rig.outbox, rig.metrics), rig.metrics)
