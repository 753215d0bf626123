"""Find out which platforms a builder of this machine can build."""

import os
import re
from collections.abc import Mapping

from soci_pipeline.builders.builder import BuilderName
from soci_pipeline.builders.buildx import has_containerd_store
from soci_pipeline.builders.engine_client import docker_host, engine_information, engine_unavailable
from soci_pipeline.errors import EngineUnavailable, InvalidInput, ToolFailed, ToolMissing
from soci_pipeline.machine.emulation import MACHINES, can_run
from soci_pipeline.machine.programs import run
from soci_pipeline.oci.platform import Platform

_LINE = re.compile(r"^Platforms:\s+(.+)$", re.MULTILINE)
_ANSWER_SECONDS = 60.0

HELP = "install qemu-user-static, or set SOCI_PIPELINE_BUILD_BUILDX_BUILDER to a builder that has it"
"""How to make one more platform buildable, as a part of a sentence."""


def buildable(
    builder: BuilderName, *, buildx_builder: str | None = None, env: Mapping[str, str] | None = None
) -> frozenset[Platform] | None:
    """Return the platforms that this machine's engine, or the named buildx builder, can build; None for any.

    Raises `EngineUnavailable` if no engine answers.
    """
    if builder is BuilderName.PREBUILT:
        return None
    environment = os.environ if env is None else env
    information = engine_information(environment)
    if information is None and buildx_builder is None:
        raise engine_unavailable(environment)
    if builder is not BuilderName.DOCKER:
        listed = _of_buildx(buildx_builder, environment)
        if buildx_builder is not None:
            return listed
        if listed:
            return listed | platforms_of_this_machine() if _is_here(environment) else listed
    if information is not None and has_containerd_store(information):
        return frozenset({Platform.parse(f"{information['OSType']}/{information['Architecture']}").normalised()})
    return platforms_of_this_machine()


def _of_buildx(name: str | None, env: Mapping[str, str]) -> frozenset[Platform]:
    """Return the platforms that `docker buildx inspect` lists; none if the machine has no buildx."""
    try:
        # Named explicitly, so that the user's `docker buildx use` has no effect.
        said = run(["docker", "buildx", "inspect", name or "default"], env=env, timeout=_ANSWER_SECONDS).stdout
    except (ToolFailed, ToolMissing) as error:
        if name is None:
            return frozenset()
        raise EngineUnavailable(
            f"the buildx builder {name!r} does not answer: {error.reason}", advice="`docker buildx ls` lists them."
        ) from error
    found = set()
    for word in (word for line in _LINE.findall(said) for word in line.split(",")):
        try:
            found.add(Platform.parse(word.strip().rstrip("*")).normalised())
        except InvalidInput:
            # This library does not know the platform.
            continue
    return frozenset(found)


def platforms_of_this_machine() -> frozenset[Platform]:
    """Return this machine's own platform and those that its kernel emulates."""
    native = Platform.native().normalised()
    return frozenset({native, *(Platform("linux", each) for each in MACHINES if can_run(each))})


def _is_here(env: Mapping[str, str]) -> bool:
    return docker_host(env).startswith("unix://")
