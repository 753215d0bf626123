"""Image references: ``registry/repository[:tag][@digest]``, parsed like Docker does.

Grammar: distribution's reference package and the distribution spec ("Pulling manifests"). A name without a registry is
on Docker Hub, and a single-component name there is in ``library/``. ``str()`` returns the full form, which `parse`
accepts.
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
_ADVICE = "Use registry/repository:tag, for example registry.example.com/team/app:1.0."


def is_tag(text: str) -> bool:
    """Whether a string is a valid tag: 1 to 128 of ``[A-Za-z0-9_.-]``, not starting with ``.`` or ``-``."""
    return _TAG.match(text) is not None


def is_repository(text: str) -> bool:
    """Whether a string is a valid repository name (without the host)."""
    return len(text) <= _MAX_NAME and _REPOSITORY.match(text) is not None


def is_registry(text: str) -> bool:
    """Whether a string is a valid registry name, ``host[:port]``."""
    return _REGISTRY.match(text) is not None and _port(text) <= _MAX_PORT


def canonical_registry(registry: str) -> str:
    """Normalize ``host[:port]``: lower case, and one name for Docker Hub."""
    lower = registry.lower()
    return DOCKER_HUB if lower in _HUB_NAMES else lower


def hostname(registry: str) -> str:
    """Return the host of ``host[:port]``; an IPv6 address keeps its brackets."""
    if registry.startswith("["):
        return registry.partition("]")[0] + "]"
    return registry.partition(":")[0]


def _port(registry: str) -> int:
    return int(registry.removeprefix(hostname(registry)).removeprefix(":") or 0)


def is_local_registry(registry: str) -> bool:
    """Whether ``host[:port]`` is loopback by name (127.*, localhost, ::1); no DNS lookup."""
    return _LOOPBACK.match(hostname(registry)) is not None


@dataclass(frozen=True, slots=True, order=True)
class ImageReference:
    """Location of an image: registry, repository, and optionally a tag and a digest.

    Raises `InvalidInput` for an invalid registry, repository or tag.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        if not is_registry(self.registry):
            raise InvalidInput(f"not a valid registry host: {self.registry[:100]!r}", advice=_ADVICE)
        if not is_repository(self.repository):
            detail = "; names must be lower case" if self.repository != self.repository.lower() else ""
            raise InvalidInput(f"not a valid repository name: {self.repository[:100]!r}{detail}", advice=_ADVICE)
        if self.tag is not None and not is_tag(self.tag):
            raise InvalidInput(f"not a valid tag: {self.tag[:140]!r}", advice=_ADVICE)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a reference; raise `InvalidInput` if it is not valid."""
        if "://" in text:
            raise InvalidInput(f"not a valid image reference: {text[:200]!r}", advice=f"Omit the scheme. {_ADVICE}")
        if not text.strip():
            raise InvalidInput("an image reference is empty", advice=_ADVICE)
        rest, _, digest = text.strip().partition("@")
        name, colon, tag = rest.rpartition(":")
        if not colon or "/" in tag:
            name, tag = rest, ""
        if colon and not tag and rest.endswith(":"):
            raise InvalidInput(f"the colon in {text[:200]!r}", advice=_ADVICE)
        if text.strip().endswith("@"):
            raise InvalidInput(f"the @ in {text[:200]!r}", advice=_ADVICE)
        registry, repository = _split(name)
        return cls(registry, repository, tag or None, Digest(digest) if digest else None)

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def target(self) -> "str | Digest | None":
        """The digest if there is one, otherwise the tag, otherwise None."""
        return self.digest or self.tag

    def with_tag(self, tag: str) -> "ImageReference":
        """Return the reference with this tag and no digest."""
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> "ImageReference":
        """Return the reference with this digest and no tag."""
        return replace(self, tag=None, digest=digest)

    def without_target(self) -> "ImageReference":
        """Return the reference without tag and digest."""
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
