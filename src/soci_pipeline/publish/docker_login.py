"""A login for a program that reads Docker's configuration, written to a private folder for the duration of a block.

No password is in argv or in the environment.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from soci_pipeline.registry.auth import HUB_KEY, CredentialProvider, docker_config
from soci_pipeline.registry.credential_helper import first_json
from soci_pipeline.registry.reference import DOCKER_HUB


def login_entry(registry: str, provider: CredentialProvider | None) -> tuple[str, dict[str, str]] | None:
    """Return the key and the entry of ``auths`` in Docker's configuration for a registry; None without a login."""
    found = provider.credentials_for(registry) if provider is not None else None
    if found is None:
        return None
    name = HUB_KEY if registry == DOCKER_HUB else registry
    if (basic := found.basic()) is not None:
        return name, {"auth": basic.removeprefix("Basic ")}
    if found.identity_token is not None:
        return name, {"identitytoken": found.identity_token.get_secret_value()}
    if found.registry_token is not None:
        return name, {"registrytoken": found.registry_token.get_secret_value()}
    return None


@contextlib.contextmanager
def docker_environment(registry: str, provider: CredentialProvider | None) -> Iterator[dict[str, str]]:
    """Yield this process's environment with a login from ``provider`` for docker.

    The rest of the user's own configuration stays in effect: other logins, plugins, contexts and builders.
    """
    login = login_entry(registry, provider)
    if login is None:
        yield dict(os.environ)
        return
    own = docker_config()
    with tempfile.TemporaryDirectory(prefix="soci-pipeline-docker-") as name:
        folder = Path(name)
        for path in own.parent.iterdir() if own.parent.is_dir() else ():
            if path.name != own.name:
                (folder / path.name).symlink_to(path.absolute())
        file = folder / own.name
        file.touch(mode=0o600)
        file.write_text(json.dumps(_with_login(_read(own), *login)))
        # The folder that records builders: one that is created here must be found after the private folder is removed.
        builders = os.environ.get("BUILDX_CONFIG") or str(own.parent.absolute() / "buildx")
        yield os.environ | {"DOCKER_CONFIG": name, "BUILDX_CONFIG": builders}


def _read(path: Path) -> Mapping[str, Any]:
    """Return the current configuration; empty if docker could not read it either."""
    try:
        text = path.read_text().strip()
        document = first_json(text) if text else {}
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _with_login(config: Mapping[str, Any], name: str, entry: Mapping[str, str]) -> dict[str, Any]:
    # An empty helper disables the common credential store for this registry, so that the entry is used.
    helpers = {**(config.get("credHelpers") or {}), name: ""}
    return {**config, "auths": {**(config.get("auths") or {}), name: entry}, "credHelpers": helpers}
