"""The request to a builder: one platform of one commit."""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from soci_pipeline.builders.errors import ContextMissing, DockerfileMissing, OutsideSource
from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.platform import Platform

_IGNORE = ".dockerignore"
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SECRET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


def _named_arguments(values: dict[str, str]) -> dict[str, str]:
    for name in values:
        if not _ARGUMENT.match(name):
            raise ValueError(f"not a valid name for a build argument: {name[:100]!r}")
    return values


def _named_secrets(values: dict[str, Path]) -> dict[str, Path]:
    for name in values:
        if not _SECRET.match(name):
            raise ValueError(f"not a valid name for a build secret: {name[:100]!r}")
    return values


class BuildRequest(BaseModel):
    """One build. Paths are relative to ``source``, the checked-out work tree.

    ``secrets`` maps the id of a secret to the file that holds it; its value never enters a command line or a log.
    ``source_date_epoch`` is the commit's time in seconds. ``sbom`` has an effect only with ``attestations``: its
    scanner is an image that the engine pulls. ``pull`` checks for newer base images even if the engine has one.
    ``prebuilt`` is a path, an http(s) URL or ``docker://REFERENCE``, in which ``{platform}`` stands for
    ``linux-arm64``, ``{os}`` and ``{arch}`` for its parts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Path
    context: str = "."
    dockerfile: str = "Dockerfile"
    target: str | None = None
    build_args: Annotated[dict[str, str], AfterValidator(_named_arguments)] = Field(default_factory=dict)
    secrets: Annotated[dict[str, Path], AfterValidator(_named_secrets)] = Field(default_factory=dict)
    platform: Platform
    source_date_epoch: int = Field(ge=0)
    attestations: bool = False
    sbom: bool = True
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    buildx_builder: str | None = None
    prebuilt: str | None = None
    pull: bool = False
    network: str | None = None

    def context_folder(self) -> Path:
        """Return the build context; raise `OutsideSource` or `ContextMissing`."""
        folder = inside(self.source, self.context, what="context")
        if not folder.is_dir():
            raise ContextMissing(f"the source has no folder {self.context!r}")
        return folder

    def dockerfile_path(self) -> Path:
        """Return the Dockerfile, which may be above the context but must be in the source.

        Raises `DockerfileMissing`, `ContextMissing` or `OutsideSource`.
        """
        context = self.context_folder()
        path = inside(self.source, str(Path(self.context) / self.dockerfile), what="dockerfile")
        if not path.is_file():
            raise DockerfileMissing(f"there is no file {self.dockerfile!r} in the context {context.name!r}")
        return path

    def ignore_file(self) -> Path | None:
        """Return the Dockerfile's own ignore file, found as BuildKit does (``web.Dockerfile.dockerignore``), or None.

        It replaces ``.dockerignore``. If the Dockerfile is a link, BuildKit receives the link's target and would not
        read an ignore file next to the link; that raises `InvalidInput`.
        """
        linked = self.source / self.context / self.dockerfile
        resolved = self.dockerfile_path()
        beside_link, used = (path.with_name(f"{path.name}{_IGNORE}") for path in (linked, resolved))
        if not os.path.lexists(beside_link) or beside_link.resolve() == used.resolve():
            return used if os.path.lexists(used) else None
        raise InvalidInput(
            f"{beside_link.name!r} would be ignored, because the Dockerfile {self.dockerfile!r} is a link to "
            f"{resolved.name!r}",
            advice=f"Move it next to that file as {used.name!r}, or replace the link with the Dockerfile itself.",
        )

    def check(self) -> None:
        """Check everything about a build from source that can be known before it starts."""
        self.ignore_file()
        for name, path in self.secrets.items():
            if not path.is_file():
                raise InvalidInput(f"the file of build secret {name!r} is missing", advice="Resolve the secret again.")

    def filled(self, template: str) -> str:
        """Fill in a template for the platform of this build, as `fill` does."""
        return fill(template, self.platform)


def fill(template: str, platform: Platform) -> str:
    """Replace ``{platform}``, ``{os}``, ``{arch}`` and ``{variant}`` in a template; other braces are kept."""
    values = {
        "platform": platform.slug,
        "os": platform.os,
        "arch": platform.architecture,
        "variant": platform.variant,
    }
    return re.sub(r"\{(platform|os|arch|variant)\}", lambda match: values[match[1]], template)


def inside(source: Path, path: str, *, what: str) -> Path:
    """Return a path within the source with its links resolved; raise `OutsideSource` if it leaves the source.

    ``a/../b`` is valid, ``../b`` is not, and neither is a link that points out of the tree.
    """
    if not path or "\0" in path:
        raise InvalidInput(f"{what} is not a path: {path[:100]!r}")
    root = source.resolve()
    if Path(path).is_absolute():
        raise OutsideSource(f"{what} {path!r} is an absolute path")
    try:
        resolved = (root / path).resolve()
    except (OSError, RuntimeError) as error:
        raise InvalidInput(f"{what} {path[:200]!r} cannot be followed: {error}") from error
    if not resolved.is_relative_to(root):
        raise OutsideSource(f"{what} {path!r} points outside of the source")
    return resolved
