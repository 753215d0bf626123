"""Names of tags: templates, and the grammar of the distribution specification.

Nothing here talks to a registry; `soci_pipeline.publish.tags` does.
"""

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
# What git refs hold in practice. Everything else that git allows (quotes, `$`, `;`, `&`, non-ASCII) is refused: it has
# no place in a tag, and a ref that carries it was more likely written to break something.
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+@#=,-]*\Z")
_NOT_IN_TAGS = re.compile(r"[^A-Za-z0-9._-]+")
_SHORT = 12
_SHORTEST = 7

FIELDS = ("sha", "short_sha", "ref", "date", "version")
_OF_THE_COMMIT = frozenset({"sha", "short_sha", "ref", "version"})


def check_tag(tag: str) -> str:
    """The tag itself; raises `InvalidInput` where the distribution specification has no such tag."""
    if not is_tag(tag):
        valid = _NOT_IN_TAGS.sub("-", tag).strip("-.")
        suggestion = f"Use {valid!r}. " if is_tag(valid) and "{" not in tag else ""
        raise InvalidInput(
            f"not a tag: {tag[:200]!r}",
            advice=f"{suggestion}A tag has up to 128 letters, digits, '_', '.' and '-', and begins with a letter, a "
            "digit or '_'.",
        )
    return tag


@dataclass(frozen=True, slots=True)
class TagFields:
    """What templates are filled with. ``version`` is None where the source names none."""

    sha: str
    """The whole commit id."""
    ref: str
    """The branch or tag that was asked for, ``refs/heads/`` and ``refs/tags/`` left out; the commit where none was."""
    date: date
    """The day of the run, UTC; in tags as 2026-11-24."""
    version: str | None = None

    def __post_init__(self) -> None:
        if not is_commit(self.sha):
            raise InvalidInput(f"not a commit id: {self.sha[:100]!r}", advice="It has 40 or 64 lower-case hex digits.")

    def value(self, field: str) -> str:
        """The text of one field, fit for a tag; raises `InvalidInput` for an unknown field and one without a value."""
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
                        advice="Publish a tag such as v1.2.0, or use {short_sha} instead.",
                    )
                return ref_in_tag(self.version)
            case _:
                known = ", ".join(f"{{{name}}}" for name in FIELDS)
                raise InvalidInput(f"unknown field {{{field[:50]}}} in a tag template", advice=f"Known are {known}.")


@dataclass(frozen=True, slots=True)
class TagNames:
    """The tags of one publication.

    ``of_platforms`` has, for each of ``tags``, the tag of each platform's own image; it is empty where none are wanted.
    """

    tags: tuple[str, ...]
    of_platforms: tuple[Mapping[Platform, str], ...] = ()

    @classmethod
    def render(
        cls, templates: Sequence[str], commit: ResolvedSource, today: date, *, platforms: Sequence[Platform] = ()
    ) -> "TagNames":
        """Fill the templates for a commit; ``platforms`` are those that get tags of their own.

        Raises `InvalidInput` for a template that gives no tag, and for two platforms that would share one.
        """
        fields = TagFields(sha=commit.commit, ref=commit.ref, date=today, version=commit.version)
        tags = render_tags(templates, fields)
        return cls(tags, tuple(platform_tags(tag, platforms) for tag in tags) if platforms else ())


def ref_in_tag(ref: str) -> str:
    """A ref as part of a tag: ``feature/login`` becomes ``feature-login``.

    Raises `InvalidInput` for characters that no tag or sensible ref has, instead of making a harmless name of them.
    """
    short = ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
    if not _REF.match(short) or ".." in short:
        raise InvalidInput(
            f"the ref {ref[:200]!r} cannot be part of a tag",
            advice="Use {short_sha} in the template, or a ref of letters, digits and ./_-+ alone.",
        )
    return _NOT_IN_TAGS.sub("-", short)


def render_tags(templates: Sequence[str], fields: TagFields) -> tuple[str, ...]:
    """Fill templates such as ``main-{short_sha}``; each tag once, in the templates' order.

    A template is text of tag characters and ``{field}``; there is no other syntax, so that nothing can be smuggled
    through it. A tag cut short would be another tag, so one that is too long is refused. Raises `InvalidInput`.
    """
    return tuple(dict.fromkeys(check_tag(_FIELD.sub(lambda m: fields.value(m[1]), each)) for each in templates))


def check_templates(templates: Iterable[str]) -> None:
    """Refuse templates that can never give a tag, before a commit is known; raises `InvalidInput`."""
    example = TagFields(sha="0" * 40, ref="main", date=date(2000, 1, 1), version="1.0")
    render_tags(tuple(templates), example)


def names_commit(template: str, commit: str | None = None) -> bool:
    """Whether a template gives the tag of a commit: by a field of it, or as its id, whole or abbreviated."""
    if set(_FIELD.findall(template)) & _OF_THE_COMMIT:
        return True
    return commit is not None and len(template) >= _SHORTEST and commit.startswith(template)


def platform_tags(tag: str, platforms: Iterable[Platform]) -> dict[Platform, str]:
    """The tag of each platform's own manifest, as ``<tag>-amd64``; raises `InvalidInput` where two are equal."""
    names: dict[Platform, str] = {}
    for platform in platforms:
        plain = platform.normalised()
        parts = [plain.architecture, plain.variant] if plain.os == "linux" else [plain.os, plain.architecture]
        names[platform] = check_tag("-".join([tag, *(part for part in parts if part)]))
    if len(set(names.values())) != len(names):
        raise InvalidInput(f"two platforms would get one tag: {', '.join(sorted(names.values()))}")
    return names
