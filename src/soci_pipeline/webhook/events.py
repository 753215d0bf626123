"""The events that every source is parsed into: a push of a branch or tag, or a pushed image, as validated data.

The names in an event come from anyone who may push. They are validated here once; names that git or a shell could
misinterpret are rejected. After that they are only ever put into JSON.
"""

import hashlib
import re
import unicodedata
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from soci_pipeline.errors import InvalidInput
from soci_pipeline.git.address import COMMIT, MAX_REF_LENGTH, check_ref
from soci_pipeline.validation import in_one_line, problems_of
from soci_pipeline.webhook.clone_urls import CloneUrl, registry_host
from soci_pipeline.webhook.errors import CloneUrlRefused, EventRefused

# git and forges allow `$(…)`, quotes, `;` and more in a name; no repository needs them, and a shell might read a log.
# At some forges `~` starts the name of a user's personal project.
_UNSAFE = frozenset("$`\"'\\;|&<>(){}*?[]!^: \t\r\n")
# Control characters, surrogates, line separators and all kinds of whitespace.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp", "Zs"})
# They change the direction in which a name is displayed.
_DIRECTIONS = frozenset(map(chr, (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))))
_REF_KINDS = ("refs/heads/", "refs/tags/")
_MAX_FOLDERS = 20
_NOWHERE = "https://clone-url.invalid/rejected.git"
_SLUG_LENGTH = 100
_SLUG_DIGITS = 8
_SHOWN = 5
_DEEPEST = 4
MAX_PATHS = 10_000
MAX_PATH_LENGTH = 4096
MAX_PATHS_LENGTH = 1 << 20
"""The limit for all paths of an event together, since every path is matched against every pattern of every rule."""


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PushEvent(_Event):
    """A branch or tag that now points at ``commit``. ``paths`` are the changed paths, or None if they are not known."""

    kind: Literal["push"] = "push"
    repository: str = Field(max_length=512)
    clone_url: str = Field(max_length=2000)
    ref: str = Field(max_length=MAX_REF_LENGTH)
    commit: str = Field(pattern=COMMIT)
    paths: frozenset[Annotated[str, Field(max_length=MAX_PATH_LENGTH)]] | None = Field(
        default=None, max_length=MAX_PATHS
    )
    project: str | None = Field(default=None, max_length=512)
    """The forge's ID of the repository, if its API needs one."""

    @field_validator("repository")
    @classmethod
    def _repository_is_a_plain_path(cls, name: str) -> str:
        folders = name.split("/")
        plain = all(each and each.strip(".") and not each.startswith("-") for each in folders)
        if not plain or not _is_plain(name) or ".." in name or len(folders) > _MAX_FOLDERS + 1:
            raise ValueError("not a valid repository path")
        return name

    @field_validator("clone_url")
    @classmethod
    def _clone_url_is_remote(cls, url: str) -> str:
        CloneUrl.parse(url)
        return url

    @field_validator("paths")
    @classmethod
    def _paths_are_bounded(cls, paths: frozenset[str] | None) -> frozenset[str] | None:
        if sum(map(len, paths or ())) > MAX_PATHS_LENGTH:
            raise ValueError(f"the paths have more than {MAX_PATHS_LENGTH} characters together")
        return paths

    @field_validator("ref")
    @classmethod
    def _ref_is_a_sound_branch_or_tag(cls, ref: str) -> str:
        try:
            checked = check_ref(ref)
        except InvalidInput as error:
            raise ValueError(error.reason) from error
        name = next((ref.removeprefix(kind) for kind in _REF_KINDS if ref.startswith(kind)), "")
        if checked != ref or not name or name.startswith("-") or not _is_plain(name) or "~" in name:
            raise ValueError("not a valid branch or tag")
        return checked

    @property
    def host(self) -> str:
        """The host that a worker would connect to, from the clone URL."""
        return CloneUrl.parse(self.clone_url).host

    @property
    def branch(self) -> str | None:
        """The name of the branch, or None for a tag."""
        return self.ref.removeprefix("refs/heads/") if self.ref.startswith("refs/heads/") else None

    @property
    def tag(self) -> str | None:
        """The name of the tag, or None for a branch."""
        return self.ref.removeprefix("refs/tags/") if self.ref.startswith("refs/tags/") else None

    @property
    def fields(self) -> dict[str, str | None]:
        """The values that a rule can insert into parameters as ``${name}``."""
        name = self.branch or self.tag or ""
        return {
            "repository": self.repository,
            "clone_url": self.clone_url,
            "ref": self.ref,
            "branch": self.branch,
            "tag": self.tag,
            "name": name,
            "slug": _slug(name),
            "commit": self.commit,
            "short_commit": self.commit[:12],
        }

    @property
    def subject(self) -> str:
        """The key under which a newer event supersedes an older one: the same ref of the same repository."""
        return f"{self.repository} {self.ref}"


def _is_plain(name: str) -> bool:
    """Whether a name has only characters, of any script, that are safe to display; emoji are allowed."""
    return not any(
        each in _UNSAFE or each in _DIRECTIONS or unicodedata.category(each) in _UNSAFE_CATEGORIES for each in name
    )


def _slug(name: str) -> str | None:
    """Convert a name into one that is valid in an image tag; names that are not ASCII get a hash to stay distinct."""
    if not name:
        return None
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".-")[:_SLUG_LENGTH]
    if plain and name.isascii():
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:_SLUG_DIGITS]
    return f"{plain.rstrip('.-')}-{digest}".lstrip("-")


class ImageEvent(_Event):
    """A tag of an image repository now points at ``digest``; ``repository`` includes the registry's host."""

    kind: Literal["image"] = "image"
    repository: str = Field(max_length=512, pattern=r"^[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$")
    tag: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")

    @field_validator("repository")
    @classmethod
    def _registry_is_remote(cls, repository: str) -> str:
        registry_host(repository)
        return repository

    @property
    def host(self) -> str:
        """The host that a worker would connect to, from the repository."""
        return registry_host(self.repository)

    @property
    def fields(self) -> dict[str, str | None]:
        """The values that a rule can insert into parameters as ``${name}``."""
        return {
            "repository": self.repository,
            "tag": self.tag,
            "digest": self.digest,
            "reference": f"{self.repository}:{self.tag}",
        }

    @property
    def subject(self) -> str:
        """The key under which a newer event supersedes an older one: the same tag of the same repository."""
        return f"{self.repository}:{self.tag}"


class Ignored(_Event):
    """A valid event that by its kind starts nothing: a ping, a deleted branch, an image pushed by digest."""

    kind: Literal["ignored"] = "ignored"
    reason: str


Event = PushEvent | ImageEvent
StoredEvent = Annotated[Event, Field(discriminator="kind")]
FIELDS: dict[str, frozenset[str]] = {
    "push": frozenset(
        PushEvent(repository="a", clone_url="https://a.example/a", ref="refs/heads/a", commit="0" * 40).fields
    ),
    "image": frozenset(ImageEvent(repository="a.example/a", tag="a", digest="sha256:" + "0" * 64).fields),
}


def push_event(
    *,
    repository: str,
    clone_url: str,
    ref: str,
    commit: str,
    paths: frozenset[str] | None = None,
    project: str | None = None,
) -> PushEvent:
    """Build a push event; raise `CloneUrlRefused` if only its clone URL is invalid, else ``ValidationError``."""
    fields = {"repository": repository, "ref": ref, "commit": commit, "paths": paths, "project": project}
    try:
        return PushEvent.model_validate(fields | {"clone_url": clone_url})
    except ValidationError as error:
        if any(fault.place != ("clone_url",) for fault in problems_of(error)):
            raise
        refusal = refuse(error)
        event = PushEvent.model_validate(fields | {"clone_url": _NOWHERE})
        raise CloneUrlRefused(refusal.reason, event, advice=refusal.advice) from None


def refuse(error: ValidationError) -> EventRefused:
    """Convert pydantic's error to an `EventRefused` that names fields and problems but quotes nothing of the event."""
    found = [replace(fault, place=fault.place[:_DEEPEST]) for fault in problems_of(error)[:_SHOWN]]
    return EventRefused(f"the event does not have a supported format: {in_one_line(found, whole='event')}")
