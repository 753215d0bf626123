"""What a handler of the embedded registry works on: the request, and what it is about."""

from dataclasses import dataclass

from starlette.requests import Request

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.server.answers import Refusal
from soci_pipeline.registry.server.authentication import Gate, repository_access
from soci_pipeline.registry.server.repository import Repository
from soci_pipeline.registry.server.settings import ServerSettings
from soci_pipeline.registry.server.storage import Storage
from soci_pipeline.registry.server.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Site:
    """One running registry."""

    storage: Storage
    uploads: Uploads
    settings: ServerSettings
    gate: Gate | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request to one repository; ``target`` is the tag, digest or upload that the path ends with."""

    site: Site
    request: Request
    name: str
    target: str

    def repository(self) -> Repository:
        """The repository; raises `Refusal` where there is none."""
        found = self.site.storage.repository(self.name)
        if found is None:
            raise Refusal("NAME_UNKNOWN", f"there is no repository {self.name}")
        return found

    def may_read(self, name: str) -> bool:
        """Whether this request could also pull from another repository."""
        gate = self.site.gate
        return gate is None or gate.allows(self.request, repository_access(name, frozenset({"pull"})))

    def existing(self) -> Repository | None:
        """The repository, or None."""
        return self.site.storage.repository(self.name)

    def created(self) -> Repository:
        """The repository, made by the first push."""
        return self.site.storage.create(self.name)


def digest_of(text: str) -> Digest:
    """A digest from a path or query; raises `Refusal`."""
    try:
        return Digest(text)
    except InvalidInput as error:
        raise Refusal("DIGEST_INVALID", error.reason) from error
