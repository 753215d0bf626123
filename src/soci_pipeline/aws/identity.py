"""The caller's AWS identity: account, role and region; and whether a machine is likely to have AWS credentials."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from soci_pipeline.aws.client import calling, config, session
from soci_pipeline.errors import InvalidInput

if TYPE_CHECKING:
    import boto3

_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
)
_VENDOR = Path("/sys/class/dmi/id/sys_vendor")
_ASSUMED = re.compile(r"arn:(?P<partition>[a-z-]+):sts::(?P<account>[0-9]{12}):assumed-role/(?P<role>[^/]+)/.+\Z")


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller's account and ARN according to AWS; ``region`` is the region of the calls."""

    account: str
    arn: str
    region: str

    @property
    def role(self) -> str | None:
        """The name of the assumed role; None for a user or the account's root."""
        found = _ASSUMED.match(self.arn)
        return found["role"] if found else None

    @property
    def policy_source(self) -> str:
        """The ARN whose policies apply; wrong for a role with a path, which the session's ARN does not include."""
        found = _ASSUMED.match(self.arn)
        return f"arn:{found['partition']}:iam::{found['account']}:role/{found['role']}" if found else self.arn


def is_likely(env: Mapping[str, str]) -> bool:
    """Whether this machine seems to have AWS credentials, from variables, files and hardware; makes no calls."""
    if any(env.get(name) for name in _VARIABLES):
        return True
    home = env.get("HOME")
    # Path.exists raises if the folder is not accessible.
    if home and any(os.path.exists(f"{home}/.aws/{name}") for name in ("credentials", "config")):  # noqa: PTH110
        return True
    return env.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true" and _is_ec2()


def _is_ec2() -> bool:
    try:
        return "amazon ec2" in _VENDOR.read_text().lower()
    except (OSError, UnicodeDecodeError):
        return False


def caller(aws: "boto3.Session | None" = None, *, region: str | None = None) -> Identity:
    """Call ``sts:GetCallerIdentity``, which needs no permission; raise the errors of `client.calling`."""
    used = aws or session()
    place = region or used.region_name
    if place is None:
        raise InvalidInput("no AWS region is set", advice="Set AWS_REGION, or a region in the AWS profile.")
    with calling("sts:GetCallerIdentity", on="this machine's credentials", region=place):
        answer = used.client("sts", region_name=place, config=config()).get_caller_identity()
    return Identity(str(answer["Account"]), str(answer["Arn"]), place)
