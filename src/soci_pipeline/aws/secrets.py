"""Secrets of AWS Secrets Manager, handed to a build as files that only their owner can read.

The value never goes through an argument, an environment or a log: it is fetched on the worker, written to a new file
with mode 0600, and the file is removed when the block is left.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from soci_pipeline.aws.client import AwsRefused, calling, config, session
from soci_pipeline.errors import InvalidInput

_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):secretsmanager:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):secret:(?P<name>[\w/+=.@-]+)\Z"
)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


def is_secret_arn(text: str) -> bool:
    """Whether a text names a secret of Secrets Manager."""
    return _ARN.match(text) is not None


def read_secret(arn: str, *, endpoint_url: str | None = None) -> bytes:
    """The current value of a secret, as bytes (its text in UTF-8, or its binary).

    Raises `InvalidInput` for a text that is not an ARN or a secret that does not exist, `CredentialsRefused` naming
    the action, `AwsUnreachable`, `AwsRefused`.
    """
    found = _ARN.match(arn)
    if found is None:
        raise InvalidInput(
            f"not the ARN of a secret: {arn[:120]!r}",
            advice="It is written arn:aws:secretsmanager:<region>:<account>:secret:<name>.",
        )
    client = session().client("secretsmanager", region_name=found["region"], endpoint_url=endpoint_url, config=config())
    try:
        with calling("secretsmanager:GetSecretValue", on=arn):
            answer = client.get_secret_value(SecretId=arn)
    except AwsRefused as error:
        if error.code == "ResourceNotFoundException":
            raise InvalidInput(f"there is no secret {arn}", advice="Check the ARN and its region.") from error
        raise
    text = answer.get("SecretString")
    return text.encode() if text is not None else bytes(answer["SecretBinary"])


@contextlib.contextmanager
def secret_files(secrets: Mapping[str, str], *, endpoint_url: str | None = None) -> Iterator[dict[str, Path]]:
    """Write each secret (id -> ARN) to a file of its own; the files are removed when the block is left.

    The folder is in memory (``/dev/shm``) where the machine has one. Raises as `read_secret` does; nothing is left
    behind then.
    """
    for name in secrets:
        if not _ID.match(name):
            raise InvalidInput(f"not an id of a secret: {name[:100]!r}", advice="Use letters, digits, '.', '_', '-'.")
    memory = Path("/dev/shm")  # noqa: S108 - private folder of mode 0700 inside it
    with tempfile.TemporaryDirectory(prefix="soci-secrets-", dir=memory if memory.is_dir() else None) as folder:
        yield {
            name: _write(Path(folder) / name, read_secret(arn, endpoint_url=endpoint_url))
            for name, arn in secrets.items()
        }


def _write(path: Path, value: bytes) -> Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(value)
    return path
