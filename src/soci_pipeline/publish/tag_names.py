"""Names of tags: templates, and the grammar of the distribution spec. `soci_pipeline.publish.tags` moves tags."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from soci_pipeline.errors import InvalidInput
from soci_pipeline.git.address import is_commit
from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.oci.platform import Platform
from soci_pipeline.registry.reference import is_tag

_FIELD = re.compile(r"\{([^{}]*)\}")
# The characters of real git refs. Everything else that git allows (quotes, `$`, `;`, `&`, non-ASCII) is rejected: it is
# not allowed in a tag, and a ref that contains it is more likely an attack.
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+@#=,-]*\Z")
_NOT_IN_TAGS = re.compile(r"[^A-Za-z0-9._-]+")
_SHORT = 12
_SHORTEST = 7

FIELDS = ("sha", "short_sha", "ref", "date", "version")
_OF_THE_COMMIT = frozenset({"sha", "short_sha", "ref", "version"})


def check_tag(tag: str) -> str:
    """Return the tag; raise `InvalidInput` if the distribution spec does not allow it."""
    if not is_tag(tag):
        valid = _NOT_IN_TAGS.sub("-", tag).strip("-.")
        suggestion = f"Use {valid!r}. " if is_tag(valid) and "{" not in tag else ""
        raise InvalidInput(
            f"not a valid tag: {tag[:200]!r}",
            advice=f"{suggestion}A tag has up to 128 letters, digits, '_', '.' and '-', and starts with a letter, a "
            "digit or '_'.",
        )
    return tag


@dataclass(frozen=True, slots=True)
class TagFields:
    """The values of the fields of templates. ``version`` is None if the source has none."""

    sha: str
    """The whole commit id."""
    ref: str
    """The requested branch or tag without ``refs/heads/`` and ``refs/tags/``; the commit if none was requested."""
    date: date
    """The day of the run in UTC, such as 2026-11-24."""
    version: str | None = None

    def __post_init__(self) -> None:
        if not is_commit(self.sha):
            raise InvalidInput(
                f"not a commit id: {self.sha[:100]!r}", advice="A commit id has 40 or 64 lower-case hex digits."
            )

    def value(self, field: str) -> str:
        """Return the value of one field for a tag; raise `InvalidInput` for an unknown field or a missing value."""
        match field:
            case "sha":
                return self.sha
            case "short_sha":
                return self.sha[:_SHORT]
            case "ref":
                return ref_in_tag(self.ref)
            case "date":
                return self.date.isoformat()
            case "version":
                if self.version is None:
                    raise InvalidInput(
                        "{version} requires a git tag on the commit (for example v1.2.0); the commit has none",
                        advice="Create a tag such as v1.2.0, or use {short_sha} instead.",
                    )
                return ref_in_tag(self.version)
            case _:
                known = ", ".join(f"{{{name}}}" for name in FIELDS)
                raise InvalidInput(f"unknown field {{{field[:50]}}} in a tag template", advice=f"Use {known}.")


@dataclass(frozen=True, slots=True)
class TagNames:
    """The tags of one publication.

    ``of_platforms`` has, for each of ``tags``, the tag of each platform's own image; it is empty if none are requested.
    """

    tags: tuple[str, ...]
    of_platforms: tuple[Mapping[Platform, str], ...] = ()

    @classmethod
    def render(
        cls, templates: Sequence[str], commit: ResolvedSource, today: date, *, platforms: Sequence[Platform] = ()
    ) -> "TagNames":
        """Fill in the templates for a commit; ``platforms`` are those with their own tags.

        Raises `InvalidInput` for a template that gives an invalid tag, and for two platforms with the same tag.
        """
        fields = TagFields(sha=commit.commit, ref=commit.ref, date=today, version=commit.version)
        tags = render_tags(templates, fields)
        return cls(tags, tuple(platform_tags(tag, platforms) for tag in tags) if platforms else ())


def ref_in_tag(ref: str) -> str:
    """Convert a ref for use in a tag: ``feature/login`` becomes ``feature-login``.

    Raises `InvalidInput` for characters that no tag or reasonable ref has, instead of replacing them.
    """
    short = ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
    if not _REF.match(short) or ".." in short:
        raise InvalidInput(
            f"the ref {ref[:200]!r} cannot be part of a tag",
            advice="Use {short_sha} in the template, or a ref that contains only letters, digits and ./_-+.",
        )
    return _NOT_IN_TAGS.sub("-", short)


def render_tags(templates: Sequence[str], fields: TagFields) -> tuple[str, ...]:
    """Fill in templates such as ``main-{short_sha}``; each tag once, in the order of the templates.

    A template consists of tag characters and ``{field}``; there is no other syntax, so nothing can be injected. A tag
    that is too long is rejected, because a truncated tag would be a different one. Raises `InvalidInput`.
    """
    return tuple(dict.fromkeys(check_tag(_FIELD.sub(lambda m: fields.value(m[1]), each)) for each in templates))


def check_templates(templates: Iterable[str]) -> None:
    """Reject templates that can never give a valid tag, before a commit is known; raise `InvalidInput`."""
    example = TagFields(sha="0" * 40, ref="main", date=date(2000, 1, 1), version="1.0")
    render_tags(tuple(templates), example)


def names_commit(template: str, commit: str | None = None) -> bool:
    """Whether a template identifies a commit, by one of its fields or by its full or abbreviated id."""
    if set(_FIELD.findall(template)) & _OF_THE_COMMIT:
        return True
    return commit is not None and len(template) >= _SHORTEST and commit.startswith(template)


def platform_tags(tag: str, platforms: Iterable[Platform]) -> dict[Platform, str]:
    """Return the tag of each platform's own manifest, such as ``<tag>-amd64``; raise `InvalidInput` for duplicates."""
    names: dict[Platform, str] = {}
    for platform in platforms:
        plain = platform.normalised()
        parts = [plain.architecture, plain.variant] if plain.os == "linux" else [plain.os, plain.architecture]
        names[platform] = check_tag("-".join([tag, *(part for part in parts if part)]))
    if len(set(names.values())) != len(names):
        raise InvalidInput(f"two platforms would get the same tag: {', '.join(sorted(names.values()))}")
    return names
