"""Checks of this machine, one after the other; none changes anything or depends on another."""

import contextlib
import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from soci_pipeline.aws.identity import is_likely as aws_is_likely
from soci_pipeline.builders.buildx import has_containerd_store
from soci_pipeline.builders.engine_client import docker_host, engine_information
from soci_pipeline.commands.ecr_diagnosis import check_account, check_ecr
from soci_pipeline.containerd.socket import find_socket
from soci_pipeline.errors import EngineUnavailable, InvalidInput, SociPipelineError, ToolFailed, ToolMissing
from soci_pipeline.machine.emulation import can_run
from soci_pipeline.machine.programs import find, run
from soci_pipeline.oci.platform import Platform
from soci_pipeline.prefect_rest.profiles import active_profile, check_access
from soci_pipeline.registry.auth import DockerConfig, Environment, docker_config
from soci_pipeline.settings import Settings
from soci_pipeline.soci.gzip import inflate
from soci_pipeline.text import counted, sized
from soci_pipeline.urls import redacted

_MINIMUM_FREE_BYTES = 5 << 30
_SECONDS = 30.0
_LOG_IN = (
    "Run `docker login`, or set SOCI_PIPELINE_REGISTRY, SOCI_PIPELINE_REGISTRY_USERNAME and "
    "SOCI_PIPELINE_REGISTRY_PASSWORD; the demo and public registries do not need a login."
)
_USES = {
    "index": (),
    "publish prebuilt images": (),
    "build images": ("docker engine",),
    "log in to registries": ("registry credentials",),
    "run the flows": ("prefect", "prefect API"),
}
"""The uses that require more than the essential checks, with those checks."""
_START_ENGINE = (
    "Install or start Docker; without an engine only the builder `prebuilt` works. The demo "
    "in a clone of the project starts a private engine if root runs it on Debian or Ubuntu."
)


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. ``essential`` ones are required for everything; the others extend what the machine can do.

    A missing requirement that ``has_alternative`` only reduces the choice, because there is an alternative.
    """

    name: str
    ok: bool
    detail: str
    advice: str | None = None
    essential: bool = False
    has_alternative: bool = False


@dataclass(frozen=True, slots=True)
class _Probe:
    name: str
    run: Callable[[Mapping[str, str]], str]
    """A check returns its finding; a `SociPipelineError` means that the requirement is missing."""
    advice: str | None = None
    essential: bool = False
    has_alternative: bool = False


def diagnose() -> Iterator[Check]:
    """Run every check in turn, with the environment of this process."""
    env = dict(os.environ)
    for probe in (*_PROBES, *(_AWS_PROBES if aws_is_likely(env) else ())):
        ok, advice = True, None
        try:
            detail = probe.run(env)
        except SociPipelineError as error:
            ok, detail, advice = False, error.reason.splitlines()[0], probe.advice or error.advice
        yield Check(probe.name, ok, detail, advice, probe.essential, probe.has_alternative)


def summary(checks: Sequence[Check]) -> str:
    """Summarise in one line what this machine can and cannot do."""
    lacks = {each.name for each in checks if not each.ok}
    essential = [each.name for each in checks if each.essential and not each.ok]
    if essential:
        return f"this machine cannot publish anything (missing: {', '.join(essential)})"
    wanting = {use: [name for name in needs if name in lacks] for use, needs in _USES.items()}
    able = [use for use, lacking in wanting.items() if not lacking]
    unable = [f"{use} (missing: {', '.join(lacking)})" for use, lacking in wanting.items() if lacking]
    can = f"this machine can {', '.join(able[:-1])} and {able[-1]}"
    return f"{can}; it cannot {', '.join(unable)}" if unable else can


def _python(_: Mapping[str, str]) -> str:
    # An older Python could not have installed this.
    return f"Python {'.'.join(map(str, sys.version_info[:3]))}, {sys.executable}"


def _buildx(env: Mapping[str, str]) -> str:
    try:
        version = _version_of("docker", "buildx", "version", package="docker-cli")(env)
    except ToolFailed as error:
        raise ToolMissing("docker has no working buildx plugin") from error
    return f"{version}, a plugin of {find('docker', env=env)}"


def _version_of(*argv: str, package: str) -> Callable[[Mapping[str, str]], str]:
    def version(env: Mapping[str, str]) -> str:
        said = run(argv, package=package, env=env, timeout=_SECONDS)
        return (said.stdout.strip() or said.stderr_tail.strip()).splitlines()[0]

    return version


def _program(name: str, *, package: str) -> Callable[[Mapping[str, str]], str]:
    version = _version_of(name, "--version", package=package)

    def version_and_place(env: Mapping[str, str]) -> str:
        return f"{version(env)}, {find(name, env=env)}"

    return version_and_place


def _docker_engine(env: Mapping[str, str]) -> str:
    information = engine_information(env)
    named = env.get("DOCKER_HOST")
    if information is None and named:
        raise EngineUnavailable(
            f"no Docker engine answers at DOCKER_HOST={named}", advice="Start it, or correct or unset DOCKER_HOST."
        )
    if information is None:
        raise ToolMissing("no Docker engine answers", advice=_START_ENGINE)
    store = "containerd" if has_containerd_store(information) else "classic"
    return f"Docker {information.get('ServerVersion', '')} at {docker_host(env)}, {store} image store"


def _containerd_socket(env: Mapping[str, str]) -> str:
    return str(find_socket(env=env))


def _zlib_ng(_: Mapping[str, str]) -> str:
    engine = inflate.engine()
    if not engine.is_fast:
        raise ToolMissing(f"indexing uses {engine.name}, which takes about twice as long")
    return engine.name


def _disk_space(_: Mapping[str, str]) -> str:
    free = {folder: shutil.disk_usage(folder).free for folder in _written_folders()}
    text = ", ".join(f"{sized(count)} free in {folder}" for folder, count in free.items())
    if min(free.values()) < _MINIMUM_FREE_BYTES:
        raise ToolMissing(f"only {text}")
    return text


def _written_folders() -> list[Path]:
    """Return the folders of temporary files and blobs, each disk once."""
    folders = [Path(os.environ.get("TMPDIR") or "/tmp")]  # noqa: S108 - only measured
    # The check of the settings reports invalid settings.
    with contextlib.suppress(InvalidInput):
        work = Settings.from_environment().work.folder.absolute()
        # A Path raises without permission; a folder that is not visible is on the disk of its closest visible parent.
        folders.append(next(each for each in (work, *work.parents) if os.path.exists(each)))  # noqa: PTH110
    return list({folder.stat().st_dev: folder for folder in reversed(folders)}.values())[::-1]


def _root(_: Mapping[str, str]) -> str:
    if os.geteuid() != 0:
        raise ToolMissing("running as a regular user")
    return "running as root"


def _emulation(_: Mapping[str, str]) -> str:
    lacking = [p for p in (Platform("linux", "amd64"), Platform("linux", "arm64")) if not can_run(p.architecture)]
    if lacking:
        raise ToolMissing(f"programs of {', '.join(map(str, lacking))} do not run here")
    return "programs of linux/amd64 and linux/arm64 run here"


def _registry_credentials(_: Mapping[str, str]) -> str:
    path = docker_config()
    if Environment().credentials_for(os.environ.get(Environment.PREFIX, "")) is not None:
        return "in the environment"
    if not path.exists() and aws_is_likely(os.environ):
        return "none stored; ECR uses a token from this machine's AWS credentials"
    if not path.exists():
        raise ToolMissing(f"no {path}, and none in the environment variables", advice=_LOG_IN)
    DockerConfig(path).check()
    return f"Docker's configuration {path}"


def _settings(_: Mapping[str, str]) -> str:
    settings = Settings.from_environment()
    given = sum(len(getattr(settings, section).model_fields_set) for section in Settings.model_fields)
    return f"{counted(given, 'setting')} in the environment" if given else "all have their defaults"


def _prefect(_: Mapping[str, str]) -> str:
    # Not imported, since that takes two seconds and the library works without it.
    try:
        return f"Prefect {importlib.metadata.version('prefect')}"
    except importlib.metadata.PackageNotFoundError:
        raise ToolMissing("the Python package prefect is not installed") from None


def _prefect_api(_: Mapping[str, str]) -> str:
    given = active_profile(os.environ) | dict(os.environ)
    check_access(given)
    return redacted(given["PREFECT_API_URL"])


_PROBES = (
    _Probe("python", _python, "Install Python 3.11 or newer.", essential=True),
    _Probe("git", _program("git", package="git"), "Install the package git.", essential=True),
    _Probe(
        "disk space",
        _disk_space,
        "Free space, or point TMPDIR and SOCI_PIPELINE_WORK_FOLDER at a larger disk.",
        essential=True,
    ),
    _Probe("root", _root, "Only a private engine and the toolchain `containerd` require root.", has_alternative=True),
    _Probe("docker engine", _docker_engine),
    _Probe(
        "buildx",
        _buildx,
        "Install the package docker-buildx; without it the builder `docker` is used.",
        has_alternative=True,
    ),
    _Probe(
        "containerd socket",
        _containerd_socket,
        "Required only by the toolchain `containerd`; `native` does not need it.",
        has_alternative=True,
    ),
    _Probe(
        "ctr",
        _program("ctr", package="containerd"),
        "Install the package containerd; only the toolchain `containerd` requires it.",
        has_alternative=True,
    ),
    _Probe(
        "soci",
        _program("soci", package="soci-snapshotter"),
        "Install soci-snapshotter, or set SOCI_PIPELINE_CONTAINERD_SOCI_VERSION and "
        "SOCI_PIPELINE_CONTAINERD_SOCI_SHA256 to have a release downloaded; only the toolchain `containerd` requires "
        "it.",
        has_alternative=True,
    ),
    _Probe("zlib-ng", _zlib_ng, "Install the Python package zlib-ng.", has_alternative=True),
    _Probe(
        "emulation",
        _emulation,
        "Required only for RUN steps of a foreign architecture: install qemu-user-static, or use workers of each "
        "architecture.",
        has_alternative=True,
    ),
    _Probe("settings", _settings, essential=True),
    _Probe("registry credentials", _registry_credentials),
    _Probe("prefect", _prefect, "Install soci-pipeline[prefect]; the library itself works without."),
    _Probe("prefect API", _prefect_api),
)

_AWS_PROBES = (
    _Probe("AWS account", lambda _: check_account().detail, has_alternative=True),
    _Probe("ECR", lambda _: check_ecr().detail, has_alternative=True),
)
"""Checks for machines that appear to have AWS credentials."""
