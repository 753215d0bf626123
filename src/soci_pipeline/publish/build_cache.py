"""Where the build cache of an image lies in a registry: one reference for each image, platform and branch of a source.

A name ends in a hash of the image, the platform, the source's URL and the full ref. So no two images share a cache, and
what a fork or a pull request builds never ends up under the name that the default branch imports. A branch imports its
own cache and that of the default branch, and writes its own alone.
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
_ADVICE = f"Write it like {DEFAULT_TEMPLATE}, or cache.example.com/{{image}}:{{platform}}-{{ref}}."
# mode=max: the steps of all stages. ECR takes a cache only as an image manifest with OCI's media types. A cache that
# cannot be stored must not fail the build.
_EXPORT = "mode=max,image-manifest=true,oci-mediatypes=true,ignore-error=true"


class CacheMode(StrEnum):
    """The values of the parameter ``cache``."""

    OFF = "off"
    REGISTRY = "registry"


@dataclass(frozen=True, slots=True)
class BuildCache:
    """What one build reads and what it writes; ``export`` None: the commit belongs to no branch, so nobody would."""

    imports: tuple[ImageReference, ...] = ()
    export: ImageReference | None = None

    @classmethod
    def of(cls, template: str, image: ImageReference, platform: Platform, source: ResolvedSource) -> "BuildCache":
        """The references for one commit; raises `InvalidInput` for a template that gives none."""

        def place(ref: str) -> ImageReference:
            return _filled(template, image, platform, url=source.url, ref=ref)

        own = None if source.branch is None else place(source.branch)
        default = None if source.default_branch is None else place(source.default_branch)
        return cls(tuple(dict.fromkeys(each for each in (own, default) if each is not None)), own)

    @property
    def cache_from(self) -> tuple[str, ...]:
        """The imports as buildx takes them; a reference has no comma and no quote."""
        return tuple(f"type=registry,ref={each}" for each in self.imports)

    @property
    def cache_to(self) -> tuple[str, ...]:
        """The export as buildx takes it."""
        return () if self.export is None else (f"type=registry,ref={self.export},{_EXPORT}",)


def check_template(text: str) -> str:
    """The template; raises `InvalidInput` where two images, platforms or refs would share a cache."""
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
"""The type of a parameter that is such a template."""


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
    # Behind another registry's name stands the repository alone.
    place = name.replace("{image}", image.name if name.startswith("{image}") else image.repository)
    identity = "\n".join((image.name, str(platform), url, ref))
    digits = hashlib.sha256(identity.encode()).hexdigest()[:_HASH_DIGITS]
    filled = tag.replace("{platform}", platform.slug).replace("{ref}", f"{_readable(ref)}-{digits}")
    return ImageReference.parse(f"{place}:{filled}")


def _readable(ref: str) -> str:
    """What people recognise of a ref; the hash behind it tells refs apart."""
    short = ref.removeprefix("refs/heads/").removeprefix("refs/")
    return _NOT_IN_TAGS.sub("-", short)[:_READABLE].strip("-.") or "ref"
