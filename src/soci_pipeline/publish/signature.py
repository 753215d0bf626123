"""A cosign signature on an image index, with a key or an OIDC token; `cosign` signs, and this module calls it.

cosign reads the key's password from its standard input, and the registry's credentials and an OIDC token from files
that only this user can read; none of them is in argv or in the environment. A signature by key is in no transparency
log and needs no server other than the registry: it is verified with the key.
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
"""The variable in which cosign and other Sigstore tools look for an OIDC token."""
_TOKEN_SETTING = "SOCI_PIPELINE_PUBLISH_SIGNING_TOKEN_FILE"  # noqa: S105 - its name
_MAX_TOKEN_BYTES = 1 << 16
# A signing config without services: no certificate authority, log or timestamp server is contacted or looked up.
_NO_SERVICES = {
    "signing-config": {"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json"},
    "trusted-root": {"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"},
}
_KEY_SERVICES = ("awskms://", "gcpkms://", "azurekms://", "hashivault://")
_OPTION = re.compile(r"^\s+(?:-\w, )?--([a-z0-9-]+)(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key in the form that cosign accepts: a file, or the URI of a key service.

    ``password`` is for an encrypted file; None leaves it to the variable ``COSIGN_PASSWORD`` of this process.
    """

    key: str
    password: SecretStr | None = None

    def password_input(self) -> bytes:
        """The password in the form that cosign reads from a pipe; empty for an unencrypted key."""
        if self.password is not None:
            return self.password.get_secret_value().encode()
        return os.environ.get(_PASSWORD_VARIABLE, "").encode()


@dataclass(frozen=True, slots=True)
class SigningToken:
    """An OIDC token, for which Sigstore's certificate authority (Fulcio) issues a certificate: signing without a key.

    ``signing_config`` names the services; None means cosign's own, which are public.
    """

    token: SecretStr
    signing_config: Path | None = None


def configured_signer(settings: PublishSettings) -> SigningKey | SigningToken | None:
    """Return the signer of the settings, or None; raise `InvalidInput` if the token is missing."""
    if settings.signing_key is not None:
        return SigningKey(settings.signing_key)
    if settings.signing_token:
        return SigningToken(_token(settings.signing_token_file), settings.signing_config)
    return None


def sign(reference: ImageReference, signer: SigningKey | SigningToken, connection: Connection | None = None) -> bool:
    """Sign an image index by digest; return False if it already has a signature by that key.

    A signature by token is added each time. Raises `InvalidInput` for a reference without a digest, `ToolMissing`, and
    `ToolFailed` with cosign's last lines.
    """
    if reference.digest is None:
        raise InvalidInput(f"{reference} has no digest; only a digest can be signed, not a tag")
    with _environment(reference.registry, connection or Connection()) as (env, options):
        target = str(reference.with_digest(reference.digest))
        if isinstance(signer, SigningToken):
            _sign_by_token(target, signer, env, options)
        elif _is_signed(target, signer, env, options):
            logger().info("%s is already signed by that key", target)
            return False
        else:
            _sign_by_key(target, signer, env, options)
        logger().info("signed %s", target)
        return True


def _sign_by_key(target: str, key: SigningKey, env: dict[str, str], options: list[str]) -> None:
    with _private_folder() as folder:
        without_log = _without_log(_options_of_sign(env), folder)
        argv = ["cosign", "sign", "--yes", *without_log, "--key", key.key, *options, target]
        programs.run(argv, package="cosign", env=env, stdin=key.password_input(), timeout=_SECONDS)


def _sign_by_token(target: str, signer: SigningToken, env: dict[str, str], options: list[str]) -> None:
    services = [] if signer.signing_config is None else ["--signing-config", str(signer.signing_config)]
    if services and "signing-config" not in _options_of_sign(env):
        raise ToolTooOld(
            "cosign sign has no option --signing-config, which SOCI_PIPELINE_PUBLISH_SIGNING_CONFIG requires",
            advice="Install cosign 3.0 or newer, or unset the setting.",
        )
    with _private_folder() as folder, concealing([signer.token.get_secret_value().encode()]):
        file = _private_file(folder / "token", signer.token.get_secret_value())
        argv = ["cosign", "sign", "--yes", "--identity-token", str(file), *services, *options, target]
        programs.run(argv, package="cosign", env=env, timeout=_SECONDS)


def _options_of_sign(env: Mapping[str, str]) -> Mapping[str, str]:
    """Return the options of `cosign sign` with their help; a distribution's build may not print its version."""
    text = programs.run(["cosign", "sign", "--help"], package="cosign", env=env, timeout=_SECONDS).stdout
    return dict(_OPTION.findall(text))


def _without_log(known: Mapping[str, str], folder: Path) -> list[str]:
    """Return the options with which this cosign signs without a transparency log.

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
    """Return what cosign verifies with: the URI of a key service, which knows the hash algorithm, or the public key.

    The public key is always read: a missing or locked key must not look like a missing signature.
    """
    export = ["cosign", "public-key", "--key", key.key, "--outfile", str(file)]
    programs.run(export, package="cosign", env=env, stdin=key.password_input(), timeout=_SECONDS)
    return key.key if key.key.startswith(_KEY_SERVICES) else str(file)


def _token(file: Path | None) -> SecretStr:
    """Return the token in the environment, or in a file, which is read each time because tokens are short-lived."""
    if file is None:
        return _checked_token(os.environ.get(TOKEN_VARIABLE, ""), f"the variable {TOKEN_VARIABLE}")
    try:
        with file.open("rb") as stream:
            text = stream.read(_MAX_TOKEN_BYTES + 1).decode("ascii", errors="replace")
    except OSError as error:
        raise InvalidInput(
            f"cannot read the OIDC token for signing from {file}: {error.strerror}",
            advice=f"Set {_TOKEN_SETTING} to a file that the user of this process can read.",
        ) from error
    return _checked_token(text, str(file))


def _checked_token(text: str, source: str) -> SecretStr:
    token = text.strip()
    # RFC 7515, "Compact Serialization"; cosign would use anything else as a file name.
    if len(token) > _MAX_TOKEN_BYTES or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}", token):
        raise InvalidInput(
            f"no OIDC token for signing found in {source}",
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
    """Yield environment and registry options for cosign; their secrets are removed after the block."""
    # With the variable set, cosign would not read its standard input.
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
