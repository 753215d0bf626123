"""A cosign signature on an image index, by a key: `cosign` does it, and this module hands it what it needs.

The key's password goes to cosign by its standard input, and the registry's credentials by a file that only this user
can read; neither is in argv or in the environment. No transparency log is written to: a signature by key is checked
with the key.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from soci_pipeline import process
from soci_pipeline.errors import InvalidInput, ToolFailed
from soci_pipeline.process import logger
from soci_pipeline.publish.registries import Connection
from soci_pipeline.registry.auth import HUB_KEY, CredentialProvider
from soci_pipeline.registry.reference import DOCKER_HUB, ImageReference

_SECONDS = 300.0
_PASSWORD_VARIABLE = "COSIGN_PASSWORD"  # noqa: S105 - its name


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key as cosign takes it: a file, or the URI of a key service.

    ``password`` is for a file that is encrypted; None leaves it to the variable ``COSIGN_PASSWORD`` of this process.
    """

    key: str
    password: SecretStr | None = None

    def typed(self) -> bytes:
        """The password as cosign reads it from a standard input that is no terminal; empty for a key that has none."""
        if self.password is not None:
            return self.password.get_secret_value().encode()
        return os.environ.get(_PASSWORD_VARIABLE, "").encode()


def sign(reference: ImageReference, key: SigningKey, connection: Connection | None = None) -> bool:
    """Sign an image index by its digest; False where it carries a signature by that key already.

    Raises `InvalidInput` for a reference without a digest, `ToolMissing`, and `ToolFailed` with cosign's last lines.
    """
    if reference.digest is None:
        raise InvalidInput(f"{reference} has no digest, and a tag is not what can be signed")
    with _environment(reference.registry, connection or Connection()) as (env, options):
        target = str(reference.with_digest(reference.digest))
        if _is_signed(target, key, env, options):
            logger().info("%s is signed by that key already", target)
            return False
        argv = ["cosign", "sign", "--yes", "--tlog-upload=false", "--key", key.key, *options, target]
        process.run(argv, package="cosign", env=env, stdin=key.typed(), timeout=_SECONDS)
        logger().info("signed %s", target)
        return True


def _is_signed(target: str, key: SigningKey, env: dict[str, str], options: list[str]) -> bool:
    with tempfile.TemporaryDirectory(prefix="soci-pipeline-key-") as folder:
        public = Path(folder) / "key.pub"
        export: list[str | Path] = ["cosign", "public-key", "--key", key.key, "--outfile", public]
        process.run(export, package="cosign", env=env, stdin=key.typed(), timeout=_SECONDS)
        argv: list[str | Path] = ["cosign", "verify", "--insecure-ignore-tlog=true", "--key", public, *options, target]
        try:
            process.run(argv, package="cosign", env=env, timeout=_SECONDS)
        except ToolFailed as error:
            logger().debug("no signature by that key yet: %s", error.reason)
            return False
        return True


@contextlib.contextmanager
def _environment(registry: str, connection: Connection) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Environment and registry options for cosign; what they hold of secrets is gone when the block is left."""
    # With the variable, cosign would not read its standard input.
    env = {name: value for name, value in os.environ.items() if name != _PASSWORD_VARIABLE}
    options = ["--allow-http-registry", "--allow-insecure-registry"] if connection.plain_http else []
    if connection.ca_file is not None:
        options += ["--registry-cacert", str(connection.ca_file)]
    with contextlib.ExitStack() as stack:
        login = _login(registry, connection.credentials)
        if login is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soci-pipeline-login-")))
            file = folder / "config.json"
            file.touch(mode=0o600)
            file.write_text(json.dumps(login))
            env["DOCKER_CONFIG"] = str(folder)
        yield env, options


def _login(registry: str, provider: CredentialProvider | None) -> dict[str, object] | None:
    found = provider.credentials_for(registry) if provider is not None else None
    if found is None:
        return None
    name = HUB_KEY if registry == DOCKER_HUB else registry
    if (basic := found.basic()) is not None:
        return {"auths": {name: {"auth": basic.removeprefix("Basic ")}}}
    if found.identity_token is not None:
        return {"auths": {name: {"identitytoken": found.identity_token.get_secret_value()}}}
    if found.registry_token is not None:
        return {"auths": {name: {"registrytoken": found.registry_token.get_secret_value()}}}
    return None
