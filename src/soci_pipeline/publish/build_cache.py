"""The location of an image's build cache in a registry: one reference for each image, platform and branch of a source.

A name ends with a hash of the image, the platform, the source's URL and the full ref. So two images never share a
cache, and a build of a fork or pull request never writes to the name that the default branch imports. A branch imports
its own cache and that of the default branch, and writes only its own.
"""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator

from soci_pipeline.errors import InvalidInput
from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.oci.platform import Platform
from soci_pipeline.registry.reference import ImageReference

DEFAULT_TEMPLATE: Final = "{image}:cache-{platform}-{ref}"
_NAME_FIELDS = ("image",)
_TAG_FIELDS = ("platform", "ref")
_FIELD = re.compile(r"\{([^{}]*)\}")
_NOT_IN_TAGS = re.compile(r"[^A-Za-z0-9._-]+")
_READABLE = 40
_HASH_DIGITS = 12
_ADVICE = f"Use a template like {DEFAULT_TEMPLATE} or cache.example.com/{{image}}:{{platform}}-{{ref}}."
# mode=max: the steps of all stages. ECR takes a cache only as an image manifest with OCI's media types. A cache that
# cannot be stored must not fail the build.
_EXPORT = "mode=max,image-manifest=true,oci-mediatypes=true,ignore-error=true"


class CacheMode(StrEnum):
    """The values of the parameter ``cache``."""

    OFF = "off"
    REGISTRY = "registry"


@dataclass(frozen=True, slots=True)
class BuildCache:
    """The references that one build reads and writes; ``export`` is None if no branch has the commit."""

    imports: tuple[ImageReference, ...] = ()
    export: ImageReference | None = None

    @classmethod
    def of(cls, template: str, image: ImageReference, platform: Platform, source: ResolvedSource) -> "BuildCache":
        """Return the references for one commit; raise `InvalidInput` if the template gives an invalid reference."""

        def place(ref: str) -> ImageReference:
            return _filled(template, image, platform, url=source.url, ref=ref)

        own = None if source.branch is None else place(source.branch)
        default = None if source.default_branch is None else place(source.default_branch)
        return cls(tuple(dict.fromkeys(each for each in (own, default) if each is not None)), own)

    @property
    def cache_from(self) -> tuple[str, ...]:
        """Return the imports in the form of buildx; a reference contains no comma and no quote."""
        return tuple(f"type=registry,ref={each}" for each in self.imports)

    @property
    def cache_to(self) -> tuple[str, ...]:
        """Return the export in the form of buildx."""
        return () if self.export is None else (f"type=registry,ref={self.export},{_EXPORT}",)


def check_template(text: str) -> str:
    """Validate the template; raise `InvalidInput` if two images, platforms or refs would share a cache."""
    template = text.strip()
    name, colon, tag = template.rpartition(":")
    if not colon or "/" in tag:
        raise InvalidInput(f"the cache reference {template[:200]!r} has no tag", advice=_ADVICE)
    _check_fields("repository", name, _NAME_FIELDS)
    _check_fields("tag", tag, _TAG_FIELDS)
    image = ImageReference("registry.example.com", "team/app")
    _filled(template, image, Platform("linux", "amd64"), url="https://git.example.com/app.git", ref="refs/heads/main")
    return template


def _as_parameter(text: str) -> str:
    try:
        return check_template(text)
    except InvalidInput as error:
        raise ValueError(f"{error.reason}. {error.advice or ''}".strip()) from error


CacheTemplate = Annotated[str, AfterValidator(_as_parameter)]
"""Return the type of a parameter for such a template."""


def _check_fields(part: str, text: str, needed: tuple[str, ...]) -> None:
    fields = _FIELD.findall(text)
    for name in needed:
        if name not in fields:
            raise InvalidInput(
                f"the {part} of the cache reference must contain {{{name}}}: {text[:100]!r}", advice=_ADVICE
            )
    for name in fields:
        if name not in needed:
            raise InvalidInput(f"the {part} of the cache reference cannot contain {{{name[:50]}}}", advice=_ADVICE)


def _filled(template: str, image: ImageReference, platform: Platform, *, url: str, ref: str) -> ImageReference:
    name, _, tag = template.rpartition(":")
    # With the name of another registry, only the repository is used.
    place = name.replace("{image}", image.name if name.startswith("{image}") else image.repository)
    identity = "\n".join((image.name, str(platform), url, ref))
    digits = hashlib.sha256(identity.encode()).hexdigest()[:_HASH_DIGITS]
    filled = tag.replace("{platform}", platform.slug).replace("{ref}", f"{_readable(ref)}-{digits}")
    return ImageReference.parse(f"{place}:{filled}")


def _readable(ref: str) -> str:
    """Return the recognizable part of a ref; the hash after it distinguishes refs."""
    short = ref.removeprefix("refs/heads/").removeprefix("refs/")
    return _NOT_IN_TAGS.sub("-", short)[:_READABLE].strip("-.") or "ref"
