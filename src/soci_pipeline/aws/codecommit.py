"""CodeCommit as a git source: its URLs, and the user and password for git.

A password is a signature (AWS Signature Version 4, service ``codecommit``, method ``GIT``) that is valid for 15
minutes, so it is created just before git is started. It is passed to git like every other password, by a credential
helper that reads a file: AWS's remote helper (``git-remote-codecommit``) passes it as an argument, which every user of
the machine can read. Reference: CodeCommit user guide, "Setup steps for HTTPS connections".
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from pydantic import SecretStr

from soci_pipeline.aws.client import calling, session
from soci_pipeline.aws.partition import is_aws_suffix, partition_of
from soci_pipeline.errors import CredentialsRefused, InvalidInput

if TYPE_CHECKING:
    import boto3
    from botocore.credentials import ReadOnlyCredentials

_HELPER_ADDRESS = re.compile(
    r"codecommit(?:::(?P<region>[a-z0-9-]+))?://(?:(?P<profile>[\w.-]+)@)?(?P<name>[\w.-]{1,100})\Z"
)
_HTTPS_ADDRESS = re.compile(
    r"https://git-codecommit(?:-fips)?\.(?P<region>[a-z0-9-]+)\.(?P<suffix>[a-z0-9.-]+)/v1/repos/(?P<name>[\w.-]{1,100})\Z"
)


@dataclass(frozen=True, slots=True)
class CodeCommitSource:
    """A repository: its HTTPS URL and region, and the AWS profile for access if the URL names one."""

    url: str
    region: str
    profile: str | None

    @classmethod
    def parse(cls, address: str) -> Self | None:
        """Parse ``codecommit::<region>://[<profile>@]<repository>`` or the HTTPS URL; return None for other URLs.

        Raises `InvalidInput` if the region is missing or invalid.
        """
        if found := _HTTPS_ADDRESS.match(address):
            if not is_aws_suffix(found["suffix"]):
                return None
            return cls(address, found["region"], None)
        found = _HELPER_ADDRESS.match(address)
        if found is None:
            return None
        if found["region"] is None:
            raise InvalidInput(
                f"the region of the CodeCommit repository is missing: {address}",
                advice=f"Write codecommit::<region>://{found['name']}: every worker must find the same repository.",
            )
        host = f"git-codecommit.{found['region']}.{partition_of(found['region']).dns_suffix}"
        return cls(f"https://{host}/v1/repos/{found['name']}", found["region"], found["profile"])

    def sign_in(self, aws: "boto3.Session | None" = None, *, now: datetime | None = None) -> tuple[str, SecretStr]:
        """Return a user and a password signed now, with credentials from ``aws`` or boto3's default chain.

        Raises `CredentialsRefused` without AWS credentials, `ToolMissing` without the ``aws`` extra.
        """
        with calling("codecommit:GitPull", on=self.url):
            keys = (aws or session(self.profile)).get_credentials()
            frozen = keys.get_frozen_credentials() if keys is not None else None
        if frozen is None or frozen.access_key is None:
            raise CredentialsRefused(
                f"no AWS credentials found for codecommit:GitPull on {self.url}",
                advice="Give the worker a role, or name an AwsCredentials block in `source_credentials`.",
            )
        user = frozen.access_key if frozen.token is None else f"{frozen.access_key}%{frozen.token}"
        return user, SecretStr(_signature(self.url, self.region, frozen, now or datetime.now(UTC)))


def _signature(url: str, region: str, keys: "ReadOnlyCredentials", now: datetime) -> str:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    host, _, path = url.removeprefix("https://").partition("/")
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%S")
    request = AWSRequest(method="GIT", url=url)
    request.context["timestamp"] = stamp
    signer = SigV4Auth(keys, "codecommit", region)
    # Unlike for other services, only the host header is signed, and no payload.
    canonical = f"GIT\n/{path}\n\nhost:{host}\n\nhost\n"
    return f"{stamp}Z{signer.signature(signer.string_to_sign(request, canonical), request)}"
