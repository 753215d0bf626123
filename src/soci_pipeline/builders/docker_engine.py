"""Build with the Docker engine's classic builder through its API, for machines without buildx.

The engine saves layers uncompressed (since release 25); import compresses them. Timestamps cannot be set: files and the
config carry the time of the build, so digests are not reproducible. Choose `buildx` if they must be. The only ignore
file that it reads is ``.dockerignore``; a request with a Dockerfile-specific one is rejected.
"""

import os
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError, ImageNotFound

from soci_pipeline.builders.builder import BuilderName
from soci_pipeline.builders.buildx import has_containerd_store
from soci_pipeline.builders.engine_client import engine_client
from soci_pipeline.builders.errors import NotSupportedByBuilder, build_failure
from soci_pipeline.builders.request import BuildRequest
from soci_pipeline.builders.step_lines import CLASSIC_STEP
from soci_pipeline.errors import InvalidInput
from soci_pipeline.full_disk import full_disk_reported
from soci_pipeline.log import logger
from soci_pipeline.oci.platform import Platform
from soci_pipeline.progress import meter
from soci_pipeline.tool_versions import require_version

MINIMUM_ENGINE = (20, 10, 0)
_ARCHIVE = "image.tar"
_CHUNK = 1 << 20
_TAIL = 30
_ANSWER_SECONDS = 600
LABEL = "io.soci-pipeline.build"


class DockerBuilder:
    """Builds with the Docker SDK, saves the image to a file, and then removes it from the engine."""

    name = BuilderName.DOCKER
    compresses = True
    trusted = True

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._env = dict(os.environ if env is None else env)
        self._checked: BuildRequest | None = None

    def check(self, request: BuildRequest) -> None:
        """Raise for an invalid request, one that only buildx supports, or an engine that does not answer."""
        request.check()
        unsupported = {
            "build secrets": request.secrets,
            "attestations": request.attestations,
            "an exported cache": request.cache_to,
            "a buildx builder": request.buildx_builder,
        }
        for what, value in unsupported.items():
            if value:
                raise NotSupportedByBuilder(f"the builder `docker` does not support {what}")
        _refuse_ignore_file(request)
        _check_common_ignore_file(request.context_folder() / ".dockerignore")
        with self._client() as client:
            facts = client.version()
            require_version(
                "the Docker engine", str(facts.get("Version", "")), MINIMUM_ENGINE, why="to build", package="docker.io"
            )
            if has_containerd_store(client.info()):
                _refuse_foreign(Platform.parse(f"{facts.get('Os')}/{facts.get('Arch')}"), request.platform)
        self._checked = request

    def build(self, request: BuildRequest, destination: Path) -> Path:
        """Build, save and return the archive. An exception closes the connection, which ends the build."""
        if self._checked != request:
            self.check(request)
        destination.mkdir(parents=True, exist_ok=True)
        archive = destination / _ARCHIVE
        tag = f"soci-pipeline-build:{uuid.uuid4().hex}"
        with self._client() as client:
            try:
                _follow(client.build(**_options(request, tag)), request)
                _save(client, tag, archive)
            except (APIError, requests.RequestException) as error:
                raise build_failure(request.platform, str(error)) from error
            finally:
                _remove(client, tag)
        return archive

    def _client(self) -> AbstractContextManager[docker.APIClient]:
        return engine_client(self._env, timeout=_ANSWER_SECONDS)


def _refuse_ignore_file(request: BuildRequest) -> None:
    """Reject a Dockerfile-specific ignore file: the classic builder ignores it and would send the files it excludes."""
    ignored = request.ignore_file()
    if ignored is not None:
        raise NotSupportedByBuilder(
            f"the builder `docker` does not read the Dockerfile's own ignore file {ignored.name!r}, so files that it "
            "excludes could get into the image",
            advice="Choose the builder `buildx`, or rename the file to `.dockerignore` in the context.",
        )


def _check_common_ignore_file(path: Path) -> None:
    """Raise if the classic builder's client would not read every pattern and so would send files that they exclude."""
    if not os.path.lexists(path):
        return
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path.name} cannot be read: {error}", advice="Write it as UTF-8 text.") from error
    if text.startswith("\ufeff"):
        raise NotSupportedByBuilder(
            f"{path.name} starts with a byte order mark, which the builder `docker` treats as part of the first "
            "pattern: files that it excludes could get into the image",
            advice="Save the file without a byte order mark, or choose the builder `buildx`.",
        )


def _refuse_foreign(own: Platform, platform: Platform) -> None:
    """Reject other platforms: with the containerd store, the classic builder uses base images of the engine's own.

    Observed with 26.1: the result claimed linux/arm64 but contained linux/amd64 programs, which no later step detects.
    """
    if not own.matches(platform):
        raise NotSupportedByBuilder(
            f"the builder `docker` on an engine with the containerd image store builds only for {own}, but "
            f"{platform} was requested",
            advice="Choose the builder `buildx`, or build on a worker with that platform.",
        )


def _options(request: BuildRequest, tag: str) -> dict[str, Any]:
    arguments = {"SOURCE_DATE_EPOCH": str(request.source_date_epoch)} | request.build_args
    return {
        "path": str(request.context_folder()),
        "dockerfile": str(request.dockerfile_path()),
        "tag": tag,
        "buildargs": arguments,
        "target": request.target,
        "pull": request.pull,
        "platform": str(request.platform),
        "network_mode": request.network,
        "cache_from": list(request.cache_from) or None,
        "labels": {LABEL: "1"},
        "rm": True,
        "forcerm": True,
        "decode": True,
    }


def _follow(events: Iterable[dict[str, Any]], request: BuildRequest) -> None:
    lines: deque[str] = deque(maxlen=_TAIL)
    error = None
    for event in events:
        # The error is the last event; the response is still read to its end, which releases the connection.
        error = error or event.get("error")
        text = str(event.get("stream") or "")
        if CLASSIC_STEP.match(text):
            # Only the step that fails is part of the error.
            lines.clear()
        if text.strip():
            lines.append(text)
            logger().info("%s", text.rstrip())
    if error is not None:
        raise build_failure(request.platform, f"{error}\n" + "".join(lines))


def _save(client: docker.APIClient, tag: str, archive: Path) -> None:
    step = "while saving the image"
    with full_disk_reported(archive.parent, step=step), archive.open("wb") as file, meter("save") as advance:
        for chunk in client.get_image(tag, chunk_size=_CHUNK):
            file.write(chunk)
            advance(len(chunk))


def _remove(client: docker.APIClient, tag: str) -> None:
    """Remove the image, but keep its untagged parents, which are the classic builder's cache."""
    try:
        client.remove_image(tag, force=True, noprune=True)
    except ImageNotFound:
        pass
    except (APIError, requests.RequestException) as error:
        logger().warning("cannot remove the image %s from the engine: %s", tag, error)
