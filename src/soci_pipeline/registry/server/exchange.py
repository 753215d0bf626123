"""Arguments of the embedded registry's handlers: the request, its repository and its target."""

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
    """A running registry: its storage, uploads, settings and authentication."""

    storage: Storage
    uploads: Uploads
    settings: ServerSettings
    gate: Gate | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request to one repository; ``target`` is the tag, digest or upload at the end of the path."""

    site: Site
    request: Request
    name: str
    target: str

    def repository(self) -> Repository:
        """Return the repository; raise `Refusal` if it does not exist."""
        found = self.site.storage.repository(self.name)
        if found is None:
            raise Refusal("NAME_UNKNOWN", f"the repository {self.name} does not exist")
        return found

    def may_read(self, name: str) -> bool:
        """Whether the client may pull from another repository."""
        gate = self.site.gate
        return gate is None or gate.allows(self.request, repository_access(name, frozenset({"pull"})))

    def existing(self) -> Repository | None:
        """Return the repository, or None if it does not exist."""
        return self.site.storage.repository(self.name)

    def created(self) -> Repository:
        """Return the repository, created if it does not exist."""
        return self.site.storage.create(self.name)


def digest_of(text: str) -> Digest:
    """Parse a digest from a path or query; raise `Refusal` if it is not valid."""
    try:
        return Digest(text)
    except InvalidInput as error:
        raise Refusal("DIGEST_INVALID", error.reason) from error
