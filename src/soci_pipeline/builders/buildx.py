"""Build with BuildKit through `docker buildx`, and export an OCI archive with reproducible digests.

Reproducibility depends on SOURCE_DATE_EPOCH, passed as environment variable and as build argument, and on the
exporter's ``rewrite-timestamp`` (BuildKit 0.13; reproducible-builds.org, "SOURCE_DATE_EPOCH"). The engine's own builder
can export OCI archives only with the containerd image store; otherwise a builder in a container is created for the one
build.
"""

import contextlib
import csv
import io
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from soci_pipeline.builders.builder import BuilderName
from soci_pipeline.builders.engine_client import engine_unavailable
from soci_pipeline.builders.errors import BuilderUnavailable, build_failure
from soci_pipeline.builders.request import BuildRequest
from soci_pipeline.errors import InvalidInput, ToolFailed, ToolMissing
from soci_pipeline.log import logger
from soci_pipeline.machine.programs import find, run
from soci_pipeline.machine.working_folder import BUILDER_RECORD, PREFIX
from soci_pipeline.tool_versions import find_version, require_version

MINIMUM_BUILDX = (0, 10, 0)
"""The first version that passes SOURCE_DATE_EPOCH on and supports ``--provenance`` and ``--sbom``."""

MINIMUM_ENGINE = (26, 0, 0)
"""The first Docker engine whose own BuildKit supports ``rewrite-timestamp``."""

_CLI = "docker-cli"
_ARCHIVE = "image.tar"
_ANSWER_SECONDS = 60.0
# At the end, BuildKit repeats the name of each step that failed without failing the build.
_CACHE_EXPORT_FAILED = re.compile(r"^ > exporting cache to ", re.MULTILINE)
_STEP_ERROR = re.compile(r"^#\d{1,6} ERROR: (.*)$", re.MULTILINE)


class BuildxBuilder:
    """Runs ``docker buildx build`` with an OCI archive as output."""

    name = BuilderName.BUILDX
    compresses = True
    trusted = True

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._env = dict(os.environ if env is None else env)
        self._checked: BuildRequest | None = None
        self._exports_oci = False

    def check(self, request: BuildRequest) -> None:
        """Raise for an invalid request, a missing or old docker or buildx, an unavailable engine or builder."""
        request.check()
        find("docker", package=_CLI, env=self._env)
        require_version(
            "docker buildx",
            self._buildx_version(),
            MINIMUM_BUILDX,
            why="for reproducible builds",
            package="docker-buildx",
        )
        if request.buildx_builder is None:
            self._exports_oci = exports_oci(self._engine())
        else:
            self._check_named_builder(request.buildx_builder)
        self._checked = request

    def build(self, request: BuildRequest, destination: Path) -> Path:
        """Build and return the OCI archive. An exception ends the build and removes a builder created for it."""
        if self._checked != request:
            self.check(request)
        destination.mkdir(parents=True, exist_ok=True)
        archive = destination / _ARCHIVE
        env = self._env | {"SOURCE_DATE_EPOCH": str(request.source_date_epoch), "BUILDKIT_PROGRESS": "plain"}
        with self._builder(request, destination) as builder:
            argv = build_command(request, archive, builder=builder)
            try:
                done = run(argv, package=_CLI, env=env, stream=True)
            except ToolFailed as error:
                raise build_failure(request.platform, error.reason) from error
        if request.cache_to and (reason := failed_cache_export(done.stderr_tail)) is not None:
            logger().warning("the build cache was not stored, so the next build starts without it: %s", reason)
        return archive

    @contextlib.contextmanager
    def _builder(self, request: BuildRequest, destination: Path) -> Iterator[str | None]:
        if request.buildx_builder is not None:
            yield request.buildx_builder
        elif self._exports_oci:
            # Named explicitly, so that the user's `docker buildx use` has no effect.
            yield "default"
        else:
            with temporary_builder(destination, env=self._env, network=request.network) as name:
                yield name

    def _buildx_version(self) -> str:
        try:
            return run(["docker", "buildx", "version"], env=self._env, timeout=_ANSWER_SECONDS).stdout
        except ToolFailed as error:
            raise ToolMissing(
                "docker has no working buildx plugin",
                advice="Install the package docker-buildx (docker-buildx-plugin from Docker's own repository).",
            ) from error

    def _engine(self) -> dict[str, object]:
        try:
            text = run(["docker", "info", "--format", "{{json .}}"], env=self._env, timeout=_ANSWER_SECONDS).stdout
            facts = json.loads(text)
        except (ToolFailed, ValueError) as error:
            raise engine_unavailable(self._env, str(error)) from error
        if not isinstance(facts, dict) or not facts.get("ServerVersion"):
            # If it cannot connect, the client prints its own half and exits with success.
            errors = facts.get("ServerErrors") if isinstance(facts, dict) else None
            raise engine_unavailable(self._env, "; ".join(map(str, errors or ["no reason"])))
        return facts

    def _check_named_builder(self, name: str) -> None:
        try:
            run(["docker", "buildx", "inspect", name], env=self._env, timeout=_ANSWER_SECONDS)
        except ToolFailed as error:
            raise InvalidInput(
                f"the buildx builder {name!r} does not exist or does not answer: {error.reason}",
                advice="Run `docker buildx ls` to list the builders, and set `buildx_builder` to one of them.",
            ) from error


def failed_cache_export(output: str) -> str | None:
    """Return why a successful build did not store its cache, from the end of its output; None if it did."""
    if not _CACHE_EXPORT_FAILED.search(output):
        return None
    # The export is the last step, so the last error is its own.
    errors = _STEP_ERROR.findall(output)
    return str(errors[-1]) if errors else "BuildKit gives no reason"


def exports_oci(engine: Mapping[str, object]) -> bool:
    """Whether an engine's own builder can export OCI archives with rewritten timestamps, by its ``docker info``."""
    version = find_version(str(engine.get("ServerVersion", "")))
    return has_containerd_store(engine) and version is not None and version >= MINIMUM_ENGINE


def has_containerd_store(engine: Mapping[str, object]) -> bool:
    """Whether ``docker info`` reports the containerd image store (driver status ``io.containerd.snapshotter.v1``)."""
    return "io.containerd.snapshotter" in json.dumps(engine.get("DriverStatus") or [])


def build_command(request: BuildRequest, archive: Path, *, builder: str | None) -> list[str]:
    """Return the argv of a build. Secrets appear as file paths, never as values."""
    arguments = {"SOURCE_DATE_EPOCH": str(request.source_date_epoch)} | request.build_args
    argv = ["docker", "buildx", "build"]
    argv += [] if builder is None else ["--builder", builder]
    argv += ["--progress", "plain", "--platform", str(request.platform), "--file", str(request.dockerfile_path())]
    argv += ["--output", csv_fields({"type": "oci", "dest": str(archive), "rewrite-timestamp": "true"})]
    if request.attestations:
        argv += ["--provenance", "mode=max", "--sbom", "true" if request.sbom else "false"]
    else:
        argv += ["--provenance", "false", "--sbom", "false"]
    argv += ["--pull"] if request.pull else []
    argv += [] if request.target is None else ["--target", request.target]
    argv += [] if request.network is None else ["--network", request.network]
    for name, value in sorted(arguments.items()):
        argv += ["--build-arg", f"{name}={value}"]
    for name, path in sorted(request.secrets.items()):
        argv += ["--secret", csv_fields({"id": name, "src": str(path)})]
    for place in request.cache_from:
        argv += ["--cache-from", place]
    for place in request.cache_to:
        argv += ["--cache-to", place]
    return [*argv, str(request.context_folder())]


def csv_fields(fields: Mapping[str, str]) -> str:
    """Format ``key=value`` pairs for buildx: one CSV record, so that a path may contain a comma or a quote."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([f"{key}={value}" for key, value in fields.items()])
    return line.getvalue()


@contextlib.contextmanager
def temporary_builder(folder: Path, *, env: Mapping[str, str], network: str | None = None) -> Iterator[str]:
    """Create a builder of the ``docker-container`` driver; remove it with its container and cache after the block.

    Its name is recorded in ``folder`` first, so that `reaper.reap` finds it if this process is killed.
    """
    name = f"{PREFIX}{uuid.uuid4().hex[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / BUILDER_RECORD
    record.write_text(f"{name}\n")
    options = [] if network is None else ["--driver-opt", f"network={network}"]
    if network == "host":
        # Build steps may use the host's network only if the builder's daemon allows it.
        options += ["--buildkitd-flags", "--allow-insecure-entitlement network.host"]
    logger().info("creating the builder %s, because the engine's own cannot export OCI archives", name)
    try:
        try:
            create = ["docker", "buildx", "create", "--name", name, "--driver", "docker-container", *options]
            run([*create, "--bootstrap"], package=_CLI, env=env, stream=True)
        except ToolFailed as error:
            raise BuilderUnavailable(f"cannot start a builder in a container: {error.reason}") from error
        yield name
    finally:
        remove_builder(name, env=env)
        record.unlink(missing_ok=True)


def remove_recorded_builder(record: str, env: Mapping[str, str] | None) -> str | None:
    """Remove the builder named in a killed run's record; return its name, or None if no run created it."""
    name = record.strip()
    if not name.startswith(PREFIX):
        return None
    remove_builder(name, env=env)
    return name


def remove_builder(name: str, *, env: Mapping[str, str] | None = None) -> None:
    """Remove a builder with its container and its cache, if it exists."""
    try:
        run(["docker", "buildx", "rm", "--force", name], package=_CLI, env=env, timeout=_ANSWER_SECONDS)
    except ToolFailed as error:
        if "no builder" not in error.reason:
            raise
