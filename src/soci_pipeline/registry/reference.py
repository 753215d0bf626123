"""Image references: ``registry/repository[:tag][@digest]``, read as Docker reads them.

Grammar: distribution's reference package and the distribution spec ("Pulling manifests"). A name without a registry is
Docker Hub's, and one without a folder there lies in ``library/``; so ``str()`` writes the full form, and `parse` takes
that back.
"""

import re
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.text_schema import text_schema

DOCKER_HUB = "docker.io"
_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
# RFC 1035, 2.3.4: at most 63 characters.
_HOST_PART = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)"
_REGISTRY = re.compile(rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[0-9a-fA-F:.]+\])(?::[0-9]{{1,5}})?\Z")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_MAX_NAME = 255
_MAX_PORT = 65535
_LOOPBACK = re.compile(r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[?::1\]?)\Z", re.IGNORECASE)
_ADVICE = "Write it as registry/repository:tag, for example registry.example.com/team/app:1.0."


def is_tag(text: str) -> bool:
    """Whether the text can be a tag: up to 128 letters, digits, ``_``, ``.``, ``-``, not starting with the last two."""
    return _TAG.match(text) is not None


def is_repository(text: str) -> bool:
    """Whether the text can be a repository's name in a registry (without the host)."""
    return len(text) <= _MAX_NAME and _REPOSITORY.match(text) is not None


def is_registry(text: str) -> bool:
    """Whether the text is a registry's ``host[:port]``."""
    return _REGISTRY.match(text) is not None and _port(text) <= _MAX_PORT


def canonical_registry(registry: str) -> str:
    """The one spelling of ``host[:port]``: lower case, and one name for Docker Hub."""
    lower = registry.lower()
    return DOCKER_HUB if lower in _HUB_NAMES else lower


def hostname(registry: str) -> str:
    """The host of ``host[:port]``; an IPv6 address keeps its brackets."""
    if registry.startswith("["):
        return registry.partition("]")[0] + "]"
    return registry.partition(":")[0]


def _port(registry: str) -> int:
    return int(registry.removeprefix(hostname(registry)).removeprefix(":") or 0)


def is_local_registry(registry: str) -> bool:
    """Whether ``host[:port]`` names this machine's loopback by its own name (127.*, localhost, ::1)."""
    return _LOOPBACK.match(hostname(registry)) is not None


@dataclass(frozen=True, slots=True, order=True)
class ImageReference:
    """Where an image is, or shall be: a registry, a repository in it, and a tag or digest or neither."""

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        if not is_registry(self.registry):
            raise InvalidInput(f"not a registry address: {self.registry[:100]!r}", advice=_ADVICE)
        if not is_repository(self.repository):
            detail = "; names are lower case" if self.repository != self.repository.lower() else ""
            raise InvalidInput(f"not a repository name: {self.repository[:100]!r}{detail}", advice=_ADVICE)
        if self.tag is not None and not is_tag(self.tag):
            raise InvalidInput(f"not a tag: {self.tag[:140]!r}", advice=_ADVICE)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a reference; raises `InvalidInput` where it is none."""
        if "://" in text:
            raise InvalidInput(f"not an image reference: {text[:200]!r}", advice=f"Leave the scheme out. {_ADVICE}")
        if not text.strip():
            raise InvalidInput("an image reference is empty", advice=_ADVICE)
        rest, _, digest = text.strip().partition("@")
        name, colon, tag = rest.rpartition(":")
        if not colon or "/" in tag:
            name, tag = rest, ""
        if colon and not tag and rest.endswith(":"):
            raise InvalidInput(f"no tag follows the colon in {text[:200]!r}", advice=_ADVICE)
        if text.strip().endswith("@"):
            raise InvalidInput(f"no digest follows the @ in {text[:200]!r}", advice=_ADVICE)
        registry, repository = _split(name)
        return cls(registry, repository, tag or None, Digest(digest) if digest else None)

    @property
    def name(self) -> str:
        """Registry and repository: what all tags of the image share."""
        return f"{self.registry}/{self.repository}"

    @property
    def target(self) -> "str | Digest | None":
        """The digest where there is one (it says more than a tag), else the tag."""
        return self.digest or self.tag

    def with_tag(self, tag: str) -> "ImageReference":
        """The same repository under a tag, without a digest."""
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> "ImageReference":
        """The same repository by digest, without a tag."""
        return replace(self, tag=None, digest=digest)

    def without_target(self) -> "ImageReference":
        """The repository alone."""
        return replace(self, tag=None, digest=None)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return text_schema(cls, cls.parse)


def _split(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    looks_like_host = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not looks_like_host:
        first, rest = DOCKER_HUB, name
    if first in _HUB_NAMES:
        return DOCKER_HUB, rest if "/" in rest else f"library/{rest}"
    return first, rest
