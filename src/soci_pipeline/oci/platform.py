"""Platforms: the ``os/architecture[/variant]`` of an image, with normalisation and matching."""

import platform as host
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.text_schema import text_schema

_PART = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")
_ARCHITECTURE_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}
# containerd's platforms package treats these variants as the architecture without a variant.
_DEFAULT_VARIANTS = {("arm64", "v8"), ("arm64", "8"), ("arm64", "v8.0"), ("amd64", "v1"), ("arm", "v7"), ("arm", "7")}
_KNOWN_ARCHITECTURES = frozenset(
    {"amd64", "arm64", "arm", "386", "ppc64le", "s390x", "riscv64", "loong64", "mips64le", "mips64", "unknown"}
)


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """The platform of an image config or an entry of an image index (image-spec, image-index.md, ``platform``).

    ``str()`` returns ``os/architecture[/variant]``, which `parse` accepts.
    """

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``linux/arm64`` or ``linux/arm/v7``; raise `InvalidInput` for another format or architecture."""
        parts = text.strip().lower().split("/")
        advice = "Use os/architecture, for example linux/amd64 or linux/arm64."
        if len(parts) not in (2, 3) or not all(_PART.match(part) for part in parts):
            raise InvalidInput(f"not a valid platform: {text[:100]!r}", advice=advice)
        architecture = _ARCHITECTURE_ALIASES.get(parts[1], parts[1])
        if architecture not in _KNOWN_ARCHITECTURES:
            raise InvalidInput(f"unknown architecture {parts[1]!r} in platform {text!r}", advice=advice)
        return cls(parts[0], architecture, parts[2] if len(parts) == 3 else "")

    @classmethod
    def native(cls) -> Self:
        """Return the platform of this machine."""
        return cls.parse(f"{host.system().lower()}/{host.machine().lower()}")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Parse the ``platform`` of a descriptor, or the same fields of an image config; raise `InvalidInput`."""
        try:
            return cls(
                os=_text(value["os"]),
                architecture=_text(value["architecture"]),
                variant=_text(value.get("variant") or ""),
                os_version=_text(value.get("os.version") or ""),
                os_features=_texts(value.get("os.features") or ()),
            )
        except (KeyError, TypeError) as error:
            raise InvalidInput(f"not a valid platform object: {str(value)[:200]}") from error

    def to_json(self) -> dict[str, Any]:
        """Return the ``platform`` object of a descriptor, in the key order of the reference implementations."""
        fields: dict[str, Any] = {"architecture": self.architecture, "os": self.os}
        if self.os_version:
            fields["os.version"] = self.os_version
        if self.os_features:
            fields["os.features"] = list(self.os_features)
        if self.variant:
            fields["variant"] = self.variant
        return fields

    def normalised(self) -> "Platform":
        """Return the platform with aliases resolved and without a default variant: arm64/v8 becomes arm64."""
        named, variant = self.architecture.lower(), self.variant.lower()
        architecture = _ARCHITECTURE_ALIASES.get(named, named)
        variant = "" if (architecture, variant) in _DEFAULT_VARIANTS else variant
        return replace(self, os=self.os.lower(), architecture=architecture, variant=variant)

    def matches(self, other: "Platform") -> bool:
        """Return whether both are equal after normalisation; OS version and features are not compared."""
        mine, theirs = self.normalised(), other.normalised()
        return (mine.os, mine.architecture, mine.variant) == (theirs.os, theirs.architecture, theirs.variant)

    @property
    def is_unknown(self) -> bool:
        """Whether this is ``unknown/unknown``, which BuildKit sets for attestation manifests."""
        return self.os == "unknown" and self.architecture == "unknown"

    @property
    def slug(self) -> str:
        """The platform for names of pools, folders and tags: ``linux-arm64``."""
        return str(self).replace("/", "-")

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return text_schema(cls, cls.parse)


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"expected a list, got {type(value).__name__}")
    return tuple(_text(each) for each in value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a string, got {type(value).__name__}")
    if not value.isprintable():
        raise TypeError("expected a printable string")
    return value
