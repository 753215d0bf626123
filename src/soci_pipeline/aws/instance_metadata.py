"""What an EC2 instance is told about itself: the instance metadata service, version 2 alone.

Every question carries a session token that was asked for by PUT (EC2 user guide, "Use the Instance Metadata Service"),
so that a request that a program was tricked into cannot be one. ``AWS_EC2_METADATA_SERVICE_ENDPOINT``, which the AWS
SDKs read too, names another address.
"""

import os
import re
import time
from datetime import datetime

import httpx
from pydantic import BaseModel, ValidationError

from soci_pipeline.aws.client import AwsRefused, AwsUnreachable
from soci_pipeline.capacity.instance import Interruption
from soci_pipeline.errors import InvalidInput
from soci_pipeline.http_client import HttpClient, text_of
from soci_pipeline.registry.addresses import address
from soci_pipeline.registry.errors import redacted

ENDPOINT = "http://169.254.169.254"
VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
_TOKEN_SECONDS = 21_600
_RENEWED_BEFORE_S = 300.0
_ENDPOINT_LIKE = f"Set {VARIABLE} as in {ENDPOINT}, or unset it."
_INSTANCE_ID = re.compile(r"i-[0-9a-f]{8,17}")


class _InstanceAction(BaseModel):
    action: str
    time: datetime


def _checked(endpoint: str) -> str:
    url = address(endpoint)
    if url is None or url.scheme not in ("http", "https") or not url.host:
        raise InvalidInput(f"{VARIABLE} is not a valid URL: {redacted(endpoint)[:100]!r}", advice=_ENDPOINT_LIKE)
    return endpoint


class InstanceMetadata:
    """A client of the service on this instance; a context manager."""

    def __init__(self, endpoint: str | None = None) -> None:
        base = endpoint or os.environ.get(VARIABLE) or ENDPOINT
        # Link-local by nature: a proxy of the environment must never see it.
        self._client = HttpClient(base_url=_checked(base), timeout=5, trust_env=False)
        self._token = ""
        self._renew_at = 0.0

    def __enter__(self) -> "InstanceMetadata":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def instance_id(self) -> str:
        """The id of this instance; raises `AwsUnreachable` where there is no such service, so this is no instance."""
        text = self._read("instance-id") or ""
        if not _INSTANCE_ID.fullmatch(text):
            raise AwsRefused(f"the instance metadata service names no instance, but {text[:50]!r}", code="instance-id")
        return text

    def interruption(self) -> Interruption | None:
        """What EC2 will do with this spot instance, about two minutes before it does; None until then."""
        text = self._read("spot/instance-action")
        if text is None:
            return None
        try:
            found = _InstanceAction.model_validate_json(text)
        except ValidationError as error:
            raise AwsRefused(f"spot/instance-action cannot be read: {text[:100]!r}", code="instance-action") from error
        return Interruption(found.action, found.time)

    def taken_back(self) -> bool:
        """Whether the instance's Auto Scaling group is ending it (``autoscaling/target-lifecycle-state``)."""
        return self._read("autoscaling/target-lifecycle-state") == "Terminated"

    def _read(self, path: str) -> str | None:
        answer = self._ask("GET", f"/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": self._session()})
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            # The service has forgotten the token, as after a stop and a start.
            self._renew_at = 0.0
            answer = self._ask("GET", f"/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": self._session()})
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if not answer.is_success:
            raise _refused(answer, path)
        return text_of(answer).strip()

    def _session(self) -> str:
        if time.monotonic() >= self._renew_at:
            wanted = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
            answer = self._ask("PUT", "/latest/api/token", wanted)
            if not answer.is_success:
                raise _refused(answer, "the token")
            self._token = text_of(answer).strip()
            self._renew_at = time.monotonic() + _TOKEN_SECONDS - _RENEWED_BEFORE_S
        return self._token

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
        try:
            return self._client.request(method, path, headers=headers)
        except httpx.HTTPError as error:
            raise AwsUnreachable(f"the instance metadata service does not answer ({type(error).__name__})") from error


_WHERE = "Run it on an EC2 instance, with the instance metadata service switched on (IMDSv2)."


def _refused(answer: httpx.Response, what: str) -> AwsRefused:
    temporary = answer.status_code == httpx.codes.TOO_MANY_REQUESTS or answer.is_server_error
    return AwsRefused(
        f"the instance metadata service answered {answer.status_code} to {what}",
        code=str(answer.status_code),
        temporary=temporary,
        advice=None if temporary else _WHERE,
    )
