"""The builders by name, and the choice of one that the machine can use.

A builder turns a request into an archive or layout on disk; `import_image` turns that into a verified layout.
"""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from soci_pipeline.builders.errors import BuilderUnavailable, NotSupportedByBuilder
from soci_pipeline.builders.request import BuildRequest
from soci_pipeline.errors import EngineUnavailable, InvalidInput, SociPipelineError
from soci_pipeline.log import logger

if TYPE_CHECKING:
    from soci_pipeline.registry.client import RegistryClient
    from soci_pipeline.registry.reference import ImageReference

Connect = Callable[["ImageReference"], "RegistryClient"]
"""Opens the registry of an existing image; the caller closes the client."""


class BuilderName(StrEnum):
    """The values of the parameter ``builder``, each with its class, the source paths it needs, and its cache support.

    The class is ``module:name`` in this package and is loaded when the builder is chosen. ``needs`` are names of
    parameters that hold paths; a publication checks that the commit has these paths before any branch starts.
    ``has_cache`` is whether the builder can keep a build cache in a registry.
    """

    AUTO = "auto", "", ("context", "dockerfile"), True
    BUILDX = "buildx", "buildx:BuildxBuilder", ("context", "dockerfile"), True
    DOCKER = "docker", "docker_engine:DockerBuilder", ("context", "dockerfile"), False
    PREBUILT = "prebuilt", "prebuilt:PrebuiltBuilder", (), False

    class_path: str
    needs: tuple[str, ...]
    has_cache: bool

    def __new__(cls, value: str, class_path: str = "", needs: tuple[str, ...] = (), has_cache: bool = False) -> Self:
        """Create a name that carries the other values of its line."""
        name = str.__new__(cls, value)
        name._value_ = value
        name.class_path = class_path
        name.needs = needs
        name.has_cache = has_cache
        return name


class Builder(Protocol):
    """The interface of all builders.

    ``compresses`` is whether import should gzip layers that are stored uncompressed; ``trusted`` is whether the archive
    was made here, so that the diff ids of its compressed layers need no check.
    """

    name: BuilderName
    compresses: bool
    trusted: bool

    def check(self, request: BuildRequest) -> None:
        """Raise what can be detected before building: a missing Dockerfile, an engine that is down, an old version."""

    def build(self, request: BuildRequest, destination: Path) -> Path:
        """Build into the folder ``destination``, which is created; return the archive or layout for import to read."""


def load(name: BuilderName, env: Mapping[str, str] | None = None, *, connect: Connect | None = None) -> Builder:
    """Return the builder of that name. ``env`` is the environment for its programs and for finding its engine.

    ``connect`` is for `prebuilt`; without it, registries are read without credentials.
    """
    module, _, symbol = BuilderName(name).class_path.partition(":")
    make: Callable[[Any], Builder] = getattr(importlib.import_module(f"{__package__}.{module}"), symbol)
    return make(connect if name is BuilderName.PREBUILT else env)


def choose(
    name: str, request: BuildRequest, *, env: Mapping[str, str] | None = None, connect: Connect | None = None
) -> Builder:
    """Return the builder for a request, after its checks have passed.

    ``auto`` selects ``prebuilt`` if the request names an archive, else ``buildx``, else ``docker``. Raises
    `InvalidInput` for an unknown name or an invalid request, `EngineUnavailable` if no engine answers. ``env`` and
    ``connect`` are those of `load`.
    """
    env = os.environ if env is None else env
    try:
        wanted = BuilderName(name)
    except ValueError as error:
        raise InvalidInput(f"unknown builder {name!r}", advice=f"Choose from {', '.join(BuilderName)}.") from error
    if wanted is BuilderName.AUTO:
        return _automatic(request, env, connect)
    builder = load(wanted, env, connect=connect)
    builder.check(request)
    return builder


def _automatic(request: BuildRequest, env: Mapping[str, str], connect: Connect | None) -> Builder:
    if request.prebuilt is not None:
        return choose(BuilderName.PREBUILT, request, connect=connect)
    refusals: list[str] = []
    usable: list[Builder] = []
    for name in (BuilderName.BUILDX, BuilderName.DOCKER):
        try:
            usable.append(choose(name, request, env=env))
        except NotSupportedByBuilder as error:
            refusals.append(f"{name}: {error.reason}")
        except InvalidInput:
            # The request itself is invalid, so every builder would reject it.
            raise
        except SociPipelineError as error:
            refusals.append(f"{name}: {error.reason}")
    if not usable:
        raise EngineUnavailable("no builder works here\n" + "\n".join(refusals))
    if usable[0].name is not BuilderName.BUILDX:
        logger().warning("the builder `auto` uses %s: %s", usable[0].name, "; ".join(refusals))
    return usable[0] if len(usable) == 1 else FirstThatWorks(usable)


class FirstThatWorks:
    """The choice of ``auto`` if both builders look usable: the second takes over if BuildKit is unavailable.

    Only an attempt shows whether an engine with the classic image store can pull BuildKit's image.
    """

    compresses = True
    trusted = True

    def __init__(self, builders: Sequence[Builder]) -> None:
        self._builders = tuple(builders)
        self.name = self._builders[0].name

    def check(self, request: BuildRequest) -> None:
        """Do nothing: each builder was checked when it was chosen."""

    def build(self, request: BuildRequest, destination: Path) -> Path:
        """Build with the first builder that is available; a build that fails is not retried."""
        *others, last = self._builders
        for builder in others:
            try:
                return builder.build(request, destination)
            except BuilderUnavailable as error:
                logger().warning("%s; trying the builder %s", error.reason, last.name)
        self.name = last.name
        return last.build(request, destination)
