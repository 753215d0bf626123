"""A cosign signature on an image index, by a key or by an OIDC token: `cosign` does it, and this module calls it.

cosign reads the key's password from its standard input, and the registry's credentials and an OIDC token from files
that only this user can read; none of them is in argv or in the environment. A signature by key is in no transparency
log and needs no server but the registry: it is checked with the key.
"""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from soci_pipeline.errors import InvalidInput, ToolFailed
from soci_pipeline.log import logger
from soci_pipeline.machine import programs
from soci_pipeline.machine.program_output import concealing
from soci_pipeline.publish.docker_login import login_entry
from soci_pipeline.publish.registries import Connection
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import PublishSettings
from soci_pipeline.tool_versions import ToolTooOld

_SECONDS = 300.0
_PASSWORD_VARIABLE = "COSIGN_PASSWORD"  # noqa: S105 - its name
TOKEN_VARIABLE = "SIGSTORE_ID_TOKEN"  # noqa: S105 - its name
"""Where cosign and other tools of Sigstore look for an OIDC token."""
_TOKEN_SETTING = "SOCI_PIPELINE_PUBLISH_SIGNING_TOKEN_FILE"  # noqa: S105 - its name
_MAX_TOKEN_BYTES = 1 << 16
# Without services: nothing is sent to a certificate authority, a log or a timestamp server, and none is looked up.
_NO_SERVICES = {
    "signing-config": {"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json"},
    "trusted-root": {"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"},
}
_KEY_SERVICES = ("awskms://", "gcpkms://", "azurekms://", "hashivault://")
_OPTION = re.compile(r"^\s+(?:-\w, )?--([a-z0-9-]+)(.*)$", re.MULTILINE)


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


@dataclass(frozen=True, slots=True)
class SigningToken:
    """An OIDC token, for which Sigstore's certificate authority (Fulcio) issues a certificate: signing without a key.

    ``signing_config`` names the services; None means those that cosign is set up for, which are public.
    """

    token: SecretStr
    signing_config: Path | None = None


def configured_signer(settings: PublishSettings) -> SigningKey | SigningToken | None:
    """What the settings sign with, or None; raises `InvalidInput` for a token that is not there."""
    if settings.signing_key is not None:
        return SigningKey(settings.signing_key)
    if settings.signing_token:
        return SigningToken(_token(settings.signing_token_file), settings.signing_config)
    return None


def sign(reference: ImageReference, signer: SigningKey | SigningToken, connection: Connection | None = None) -> bool:
    """Sign an image index by its digest; False where it carries a signature by that key already.

    A signature by token is added each time. Raises `InvalidInput` for a reference without a digest, `ToolMissing`, and
    `ToolFailed` with cosign's last lines.
    """
    if reference.digest is None:
        raise InvalidInput(f"{reference} has no digest, and a tag is not what can be signed")
    with _environment(reference.registry, connection or Connection()) as (env, options):
        target = str(reference.with_digest(reference.digest))
        if isinstance(signer, SigningToken):
            _sign_by_token(target, signer, env, options)
        elif _is_signed(target, signer, env, options):
            logger().info("%s is signed by that key already", target)
            return False
        else:
            _sign_by_key(target, signer, env, options)
        logger().info("signed %s", target)
        return True


def _sign_by_key(target: str, key: SigningKey, env: dict[str, str], options: list[str]) -> None:
    with _private_folder() as folder:
        without_log = _without_log(_options_of_sign(env), folder)
        argv = ["cosign", "sign", "--yes", *without_log, "--key", key.key, *options, target]
        programs.run(argv, package="cosign", env=env, stdin=key.typed(), timeout=_SECONDS)


def _sign_by_token(target: str, signer: SigningToken, env: dict[str, str], options: list[str]) -> None:
    services = [] if signer.signing_config is None else ["--signing-config", str(signer.signing_config)]
    if services and "signing-config" not in _options_of_sign(env):
        raise ToolTooOld(
            "cosign sign has no option --signing-config, which SOCI_PIPELINE_PUBLISH_SIGNING_CONFIG needs",
            advice="Install cosign 3.0 or newer, or unset the setting.",
        )
    with _private_folder() as folder, concealing([signer.token.get_secret_value().encode()]):
        file = _private_file(folder / "token", signer.token.get_secret_value())
        argv = ["cosign", "sign", "--yes", "--identity-token", str(file), *services, *options, target]
        programs.run(argv, package="cosign", env=env, timeout=_SECONDS)


def _options_of_sign(env: Mapping[str, str]) -> Mapping[str, str]:
    """The options of `cosign sign` with what its help says of each; a distribution's build may not name its version."""
    text = programs.run(["cosign", "sign", "--help"], package="cosign", env=env, timeout=_SECONDS).stdout
    return dict(_OPTION.findall(text))


def _without_log(known: Mapping[str, str], folder: Path) -> list[str]:
    """The options by which this cosign signs without a transparency log.

    From 3.0 on, its services come from a signing config: it fails with ``--tlog-upload=false``, or ignores it (3.0.2).
    """
    by_config = "tlog-upload" not in known or "true" in known.get("use-signing-config", "")
    if not by_config or "signing-config" not in known:
        return ["--tlog-upload=false"]
    files = {
        name: _private_file(folder / name, json.dumps(_NO_SERVICES[name])) for name in _NO_SERVICES if name in known
    }
    return [word for name, file in files.items() for word in (f"--{name}", str(file))]


def _is_signed(target: str, key: SigningKey, env: dict[str, str], options: list[str]) -> bool:
    with _private_folder() as folder:
        public = _public_key(key, folder / "key.pub", env)
        argv = ["cosign", "verify", "--insecure-ignore-tlog=true", "--key", public, *options, target]
        try:
            programs.run(argv, package="cosign", env=env, timeout=_SECONDS)
        except ToolFailed as error:
            logger().debug("no signature by that key yet: %s", error.reason)
            return False
        return True


def _public_key(key: SigningKey, file: Path, env: dict[str, str]) -> str:
    """What cosign verifies with: the URI of a key service, which knows the key's hash algorithm, or the public key.

    The public key is read in any case: a key that is missing or locked must not look like a missing signature.
    """
    export = ["cosign", "public-key", "--key", key.key, "--outfile", str(file)]
    programs.run(export, package="cosign", env=env, stdin=key.typed(), timeout=_SECONDS)
    return key.key if key.key.startswith(_KEY_SERVICES) else str(file)


def _token(file: Path | None) -> SecretStr:
    """The token in a file, which is read anew each time since such tokens are short-lived, or of the environment."""
    if file is None:
        return _checked_token(os.environ.get(TOKEN_VARIABLE, ""), f"the variable {TOKEN_VARIABLE}")
    try:
        with file.open("rb") as stream:
            text = stream.read(_MAX_TOKEN_BYTES + 1).decode("ascii", errors="replace")
    except OSError as error:
        raise InvalidInput(
            f"the OIDC token for signing cannot be read from {file}: {error.strerror}",
            advice=f"Set {_TOKEN_SETTING} to a file that the user of this process can read.",
        ) from error
    return _checked_token(text, str(file))


def _checked_token(text: str, source: str) -> SecretStr:
    token = text.strip()
    # RFC 7515, "Compact Serialization"; cosign would take anything else for the name of a file.
    if len(token) > _MAX_TOKEN_BYTES or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}", token):
        raise InvalidInput(
            f"there is no OIDC token for signing in {source}",
            advice=f"Put a token (a JWT for the audience sigstore) into the file of {_TOKEN_SETTING}, or into "
            f"{TOKEN_VARIABLE}.",
        )
    return SecretStr(token)


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="soci-pipeline-sign-") as folder:
        yield Path(folder)


def _private_file(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


@contextlib.contextmanager
def _environment(registry: str, connection: Connection) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Environment and registry options for cosign; what they hold of secrets is gone when the block is left."""
    # With the variable, cosign would not read its standard input.
    env = {name: value for name, value in os.environ.items() if name != _PASSWORD_VARIABLE}
    options = ["--allow-http-registry", "--allow-insecure-registry"] if connection.plain_http else []
    if connection.ca_file is not None:
        options += ["--registry-cacert", str(connection.ca_file)]
    with contextlib.ExitStack() as stack:
        login = login_entry(registry, connection.credentials)
        if login is not None:
            folder = stack.enter_context(_private_folder())
            name, entry = login
            _private_file(folder / "config.json", json.dumps({"auths": {name: entry}}))
            env["DOCKER_CONFIG"] = str(folder)
        yield env, options
