"""Read secrets from AWS Secrets Manager on the worker; values never appear in arguments or logs."""

import re

from soci_pipeline.aws.client import AwsRefused, calling, config, session
from soci_pipeline.errors import InvalidInput

# Names of secrets that AWS services manage contain an exclamation mark, such as rds!db-….
_ARN = re.compile(r"arn:aws[a-z-]*:secretsmanager:(?P<region>[a-z0-9-]+):[0-9]{12}:secret:[A-Za-z0-9/_+=.@!-]+\Z")


def is_secret_arn(text: str) -> bool:
    """Whether a string is the ARN of a secret in Secrets Manager."""
    return _ARN.match(text) is not None


def read_secret(arn: str, *, endpoint_url: str | None = None) -> bytes:
    """Return the current value of a secret as bytes (a string as UTF-8, or the binary value).

    Raises `InvalidInput` if ``arn`` is not an ARN or the secret does not exist, `CredentialsRefused` naming the action,
    `AwsUnreachable`, `AwsRefused`.
    """
    found = _ARN.match(arn)
    if found is None:
        raise InvalidInput(
            f"not a valid secret ARN: {arn[:120]!r}",
            advice="The format is arn:aws:secretsmanager:<region>:<account>:secret:<name>.",
        )
    try:
        with calling("secretsmanager:GetSecretValue", on=arn):
            client = session().client(
                "secretsmanager", region_name=found["region"], endpoint_url=endpoint_url, config=config()
            )
            answer = client.get_secret_value(SecretId=arn)
    except AwsRefused as error:
        if error.code == "ResourceNotFoundException":
            raise InvalidInput(f"secret not found: {arn}", advice="Check the ARN and its region.") from error
        raise
    text = answer.get("SecretString")
    return text.encode() if text is not None else bytes(answer["SecretBinary"])
