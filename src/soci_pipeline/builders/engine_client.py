"""A connection to the Docker engine's API, through the Docker SDK."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from soci_pipeline.errors import EngineUnavailable, StackError
from soci_pipeline.project import project_folder
from soci_pipeline.urls import redacted

if TYPE_CHECKING:
    import docker

DEFAULT_HOST = "unix:///var/run/docker.sock"
_REACHABLE_SECONDS = 60.0
_INFORMATION_SECONDS = 10


def docker_host(env: Mapping[str, str]) -> str:
    """Return the engine's URL in an environment: ``DOCKER_HOST``, else the default socket."""
    return env.get("DOCKER_HOST") or DEFAULT_HOST


def engine_unavailable(env: Mapping[str, str], detail: str = "") -> EngineUnavailable:
    """Return the error for an engine that does not answer, with the socket or URL that was tried and its origin."""
    is_set = bool(env.get("DOCKER_HOST"))
    origin = "from DOCKER_HOST" if is_set else "DOCKER_HOST is not set"
    advice = "Start the engine, or correct DOCKER_HOST." if is_set else "Start the engine, or set DOCKER_HOST."
    return EngineUnavailable(
        f"no Docker engine answers at {redacted(docker_host(env))} ({origin})" + (f": {detail}" if detail else ""),
        advice=f"{advice}{_private_engine_advice(env)} The builder `prebuilt` needs no engine.",
    )


def _private_engine_advice(env: Mapping[str, str]) -> str:
    """Return how to start a private engine from a checkout; empty outside of one, where the command does not exist."""
    try:
        folder = project_folder(env)
    except StackError:
        return ""
    if not (folder / "local_stack" / "engine_command.py").is_file():
        return ""
    return f" Root on Debian or Ubuntu can run a private one: `python -m local_stack engine` in {folder}."


@contextmanager
def engine_client(env: Mapping[str, str], *, timeout: int) -> Iterator[docker.APIClient]:
    """Connect to the engine of an environment; ``timeout`` is in seconds, for each response.

    Raises `EngineUnavailable` if no engine answers.
    """
    # Only here: commands that check their parameters need no engine, and the import takes a fifth of a second.
    import docker
    import requests
    from docker.errors import DockerException
    from docker.utils import kwargs_from_env

    try:
        host = docker_host(env)
        _check_reachable(host, min(timeout, _REACHABLE_SECONDS))
        # The credentials file is docker's own; the SDK reads it from DOCKER_CONFIG or the home folder.
        settings = kwargs_from_env(environment={**env, "DOCKER_HOST": host})
        client = docker.APIClient(version="auto", timeout=timeout, **settings)
    except (DockerException, requests.RequestException, OSError) as error:
        raise engine_unavailable(env, str(error)) from error
    try:
        yield client
    finally:
        client.close()


def engine_information(env: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the engine's ``docker info``; None if no engine answers."""
    from docker.errors import DockerException

    try:
        with engine_client(env, timeout=_INFORMATION_SECONDS) as client:
            information: dict[str, Any] = client.info()
    except (EngineUnavailable, DockerException, OSError):
        return None
    return information


def _check_reachable(host: str, seconds: float) -> None:
    """Connect to a local engine's socket first: the SDK leaves its own socket open if the connection fails."""
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(seconds)
            probe.connect(host.removeprefix("unix://"))
