"""Poll an SQS queue that EventBridge writes to; a message is deleted only after its event is stored.

A message that is not a CodeCommit or ECR event, or whose parameters are not valid, stays in the queue: after the number
of receives set in the queue's redrive policy, SQS moves it to the dead-letter queue for inspection.
"""

import logging
from typing import TYPE_CHECKING

from soci_pipeline.aws.client import AwsRefused, AwsUnreachable, calling, config, session
from soci_pipeline.errors import CredentialsRefused
from soci_pipeline.retry import delay_s
from soci_pipeline.webhook.errors import EventRefused, OutboxUnavailable
from soci_pipeline.webhook.json_logs import log
from soci_pipeline.webhook.metrics import Metrics
from soci_pipeline.webhook.receiver import Receiver
from soci_pipeline.webhook.sources.eventbridge import QueueSource, parse

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

_BATCH = 10


class QueuePoller:
    """Receives the messages of one queue; not thread-safe, one thread calls `step`."""

    def __init__(self, source: QueueSource, receiver: Receiver, metrics: Metrics) -> None:
        self._source = source
        self._receiver = receiver
        self._metrics = metrics
        self._url = str(source.queue_url)
        self._failures = 0
        with calling("sqs:ReceiveMessage", on=self._url):
            self._client: SQSClient = session().client(
                "sqs",
                region_name=source.region,
                endpoint_url=str(source.endpoint_url) if source.endpoint_url else None,
                config=config(read_timeout_s=source.wait_s + 15.0),
            )

    def step(self) -> float:
        """Do one long poll; return the seconds to wait before the next one."""
        try:
            with calling("sqs:ReceiveMessage", on=self._url):
                answer = self._client.receive_message(
                    QueueUrl=self._url, MaxNumberOfMessages=_BATCH, WaitTimeSeconds=self._source.wait_s
                )
            for message in answer.get("Messages", ()):
                self._take(message)
        except (AwsRefused, AwsUnreachable, CredentialsRefused) as error:
            self._failures += 1
            log("cannot read the queue: " + error.reason, level=logging.ERROR, source=self._source.name)
            return delay_s(self._failures, first_s=1.0)
        except OutboxUnavailable as error:
            # Not deleted: the message becomes visible again.
            self._failures += 1
            log(error.reason, level=logging.ERROR, source=self._source.name)
            return delay_s(self._failures, first_s=1.0)
        self._failures = 0
        return 0.0

    def _take(self, message: "MessageTypeDef") -> None:
        body = message.get("Body", "").encode()
        try:
            # The body includes EventBridge's ID and time, so a redelivered event has identical bytes.
            answer = self._receiver.accept(self._source, body, parse(body))
        except EventRefused as error:
            self._count("left")
            reason = "left a message for the dead-letter queue: " + error.reason
            log(reason, level=logging.WARNING, source=self._source.name, message_id=message.get("MessageId"))
            return
        with calling("sqs:DeleteMessage", on=self._url):
            self._client.delete_message(QueueUrl=self._url, ReceiptHandle=message.get("ReceiptHandle", ""))
        self._count(str(answer.body["status"]))

    def _count(self, result: str) -> None:
        self._metrics.count("soci_webhook_queue_messages_total", source=self._source.name, result=result)
