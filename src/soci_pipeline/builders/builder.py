"""The builders by name, and which one a machine can use.

A builder turns a request into an archive or a layout on disk; `import_image` makes the verified layout of it.
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
"""Opens the registry of an image that is there already; who calls it closes the client."""


class BuilderName(StrEnum):
    """The values of the parameter ``builder``: each with its class, the places in the source that it needs, its cache.

    The class is ``module:name`` in this package and is loaded when the builder is chosen. The places are names of
    parameters; a publication looks for them in the commit before any branch starts. ``has_cache`` says whether it can
    keep a build cache in a registry.
    """

    AUTO = "auto", "", ("context", "dockerfile"), True
    BUILDX = "buildx", "buildx:BuildxBuilder", ("context", "dockerfile"), True
    DOCKER = "docker", "docker_engine:DockerBuilder", ("context", "dockerfile"), False
    PREBUILT = "prebuilt", "prebuilt:PrebuiltBuilder", (), False

    class_path: str
    needs: tuple[str, ...]
    has_cache: bool

    def __new__(cls, value: str, class_path: str = "", needs: tuple[str, ...] = (), has_cache: bool = False) -> Self:
        """A name that carries the rest of its line."""
        name = str.__new__(cls, value)
        name._value_ = value
        name.class_path = class_path
        name.needs = needs
        name.has_cache = has_cache
        return name


class Builder(Protocol):
    """What every builder can do.

    ``compresses`` says whether import should gzip layers that are stored uncompressed; ``trusted`` whether the archive
    was made here, so that the diff ids of its compressed layers need no check.
    """

    name: BuilderName
    compresses: bool
    trusted: bool

    def check(self, request: BuildRequest) -> None:
        """Raise what can be known before building: a missing Dockerfile, an engine that is down, an old version."""

    def build(self, request: BuildRequest, destination: Path) -> Path:
        """Build into the folder ``destination``, which is made; returns the archive or layout that import reads."""


def load(name: BuilderName, env: Mapping[str, str] | None = None, *, connect: Connect | None = None) -> Builder:
    """The builder of that name. ``env`` is the environment in which its programs run and its engine is found.

    ``connect`` is for `prebuilt`; without it, registries are read without credentials.
    """
    module, _, symbol = BuilderName(name).class_path.partition(":")
    make: Callable[[Any], Builder] = getattr(importlib.import_module(f"{__package__}.{module}"), symbol)
    return make(connect if name is BuilderName.PREBUILT else env)


def choose(
    name: str, request: BuildRequest, *, env: Mapping[str, str] | None = None, connect: Connect | None = None
) -> Builder:
    """The builder for a request, checked: nothing that can be known beforehand stands against it.

    ``auto`` takes ``prebuilt`` where the request names an archive, else ``buildx``, else ``docker``. Raises
    `InvalidInput` for an unknown name or a bad request, `EngineUnavailable` where no engine answers. ``env`` and
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
            # The request itself is wrong, and would be for any builder.
            raise
        except SociPipelineError as error:
            refusals.append(f"{name}: {error.reason}")
    if not usable:
        raise EngineUnavailable("no builder can be used here\n" + "\n".join(refusals))
    if usable[0].name is not BuilderName.BUILDX:
        logger().warning("the builder `auto` uses %s: %s", usable[0].name, "; ".join(refusals))
    return usable[0] if len(usable) == 1 else FirstThatWorks(usable)


class FirstThatWorks:
    """The choice of ``auto`` where both builders look usable: the second takes over if BuildKit cannot be had.

    Only the attempt tells whether an engine with the classic image store can pull BuildKit's image.
    """

    compresses = True
    trusted = True

    def __init__(self, builders: Sequence[Builder]) -> None:
        self._builders = tuple(builders)
        self.name = self._builders[0].name

    def check(self, request: BuildRequest) -> None:
        """Nothing more: each was checked when it was chosen."""

    def build(self, request: BuildRequest, destination: Path) -> Path:
        """Build with the first that works; a build that fails is not tried again."""
        *others, last = self._builders
        for builder in others:
            try:
                return builder.build(request, destination)
            except BuilderUnavailable as error:
                logger().warning("%s; trying the builder %s", error.reason, last.name)
        self.name = last.name
        return last.build(request, destination)
