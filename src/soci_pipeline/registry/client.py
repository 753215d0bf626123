"""The registry client: what a publisher needs of the OCI distribution spec, with faults in mind.

One client talks to one registry and may be used by many threads. Every method is one operation under one deadline; what
is temporary is tried again inside it (`ClientSettings`).
"""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx

from soci_pipeline.registry.auth import CredentialProvider
from soci_pipeline.registry.blobs import Blobs
from soci_pipeline.registry.connection import connect, is_plain
from soci_pipeline.registry.deprecated_names import CallableReferrers, by_deprecated_name
from soci_pipeline.registry.errors import BrokenAnswer, ManifestUnknown
from soci_pipeline.registry.manifests import Manifests
from soci_pipeline.registry.operations import OK, Operations
from soci_pipeline.registry.referrers import Referrers
from soci_pipeline.registry.settings import ClientSettings
from soci_pipeline.registry.tags import Tags
from soci_pipeline.registry.transport import Call, Transport
from soci_pipeline.urls import redacted


class RegistryClient:
    """A client for one registry (``host[:port]``); repositories are named without the host.

    ``plain_http`` None means https, except on loopback without a ``ca_file``. ``ca_file`` (PEM) is trusted besides the
    system's authorities. ``permissions`` says for ``pull``, ``push`` and ``delete`` how this registry permits it, for
    who lacks it.
    """

    blobs: Blobs
    """Reads and uploads blobs."""
    manifests: Manifests
    """Reads, pushes and deletes manifests, by tag or digest."""
    tags: Tags
    """Lists and deletes tags."""
    referrers: Referrers
    """Lists what refers to a manifest."""

    def __init__(
        self,
        registry: str,
        *,
        credentials: CredentialProvider | None = None,
        plain_http: bool | None = None,
        ca_file: Path | None = None,
        settings: ClientSettings | None = None,
        permissions: Mapping[str, str] | None = None,
    ) -> None:
        self.registry = registry
        self.settings = settings or ClientSettings()
        self._transport = Transport(
            registry,
            credentials=credentials,
            plain_http=is_plain(registry, ca_file=ca_file) if plain_http is None else plain_http,
            http=connect(registry, self.settings, ca_file=ca_file),
            settings=self.settings,
            permissions=permissions,
        )
        self._operations = Operations(self._transport)
        self.blobs = Blobs(self._operations)
        self.manifests = Manifests(self._operations)
        self.tags = Tags(self._operations, self.manifests)
        self.referrers = CallableReferrers(self._operations, self.manifests)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            return by_deprecated_name(self, name)

    @property
    def url(self) -> httpx.URL:
        """The URL that every request begins with; Docker Hub's has a host of its own."""
        return self._transport.base

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ping(self) -> None:
        """Check that a registry answers there and takes the credentials."""
        url = self._transport.base
        try:
            self._operations.call(Call("GET", url, frozenset(), OK))
        except ManifestUnknown as error:
            raise BrokenAnswer(f"{redacted(str(url))} is no OCI registry (status 404)", url=str(url)) from error
