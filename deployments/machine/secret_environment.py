"""Write a unit's variables whose values are in AWS Secrets Manager to a file that only the unit can read.

A line ``NAME=ARN`` takes a secret as it is; ``NAME=ARN#field`` a field of a JSON object, and ``NAME=ARN#field:field``
several of them joined by colons. Run by deployments/systemd/secrets.conf at each start; a rotated secret takes effect
after a restart.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from soci_pipeline.aws.secrets import read_secret
from soci_pipeline.errors import InvalidInput, SociPipelineError

_LINE = re.compile(r"(?P<name>[A-Z_][A-Z0-9_]*)=(?P<arn>[^#\s]+)(?:#(?P<fields>[\w-]+(?::[\w-]+)*))?\Z")


def main(argv: Sequence[str]) -> int:
    """Read the list ``argv[0]`` and write the file ``argv[1]``; return 1 if a secret cannot be read."""
    source, target = Path(argv[0]), Path(argv[1])
    try:
        text = "".join(f"{line}\n" for line in environment(source.read_text()))
    except SociPipelineError as error:
        print(error, file=sys.stderr)
        return 1
    target.unlink(missing_ok=True)
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return 0


def environment(listed: str) -> Iterator[str]:
    """Yield the lines of systemd's EnvironmentFile for a list of secrets; raise `InvalidInput` without their values."""
    for line in filter(None, map(str.strip, listed.splitlines())):
        found = _LINE.match(line)
        if found is None:
            raise InvalidInput(f"not a line of secrets: {line[:200]!r}", advice="Write NAME=ARN or NAME=ARN#field.")
        value = read_secret(found["arn"]).decode()
        if found["fields"]:
            value = ":".join(_field(found["arn"], value, name) for name in found["fields"].split(":"))
        if "\n" in value or "\0" in value:
            raise InvalidInput(f"the secret {found['arn']} has more than one line, which no variable can hold")
        # systemd.exec(5), EnvironmentFile: backslash, quote, `$` and backtick are escaped inside double quotes.
        quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("`", "\\`")
        yield f'{found["name"]}="{quoted}"'


def _field(arn: str, text: str, name: str) -> str:
    try:
        return str(json.loads(text)[name])
    except (ValueError, KeyError, TypeError):
        # Without `from`: the cause would show the secret.
        raise InvalidInput(f"the secret {arn} is no JSON object with a field {name}") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
