"""The registry client: the parts of the OCI distribution spec that a publisher needs, with retries.

A client is for one registry and is thread-safe. Every method is one operation with one deadline, within which temporary
errors are retried (`ClientSettings`).
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

    ``plain_http`` None means https, except on loopback without a ``ca_file``. The certificates in ``ca_file`` (PEM)
    are trusted in addition to the system's. ``permissions`` maps ``pull``, ``push`` and ``delete`` to advice on how to
    grant that permission in this registry.
    """

    blobs: Blobs
    """Operations on blobs: read, upload."""
    manifests: Manifests
    """Operations on manifests, by tag or digest: read, push, delete."""
    tags: Tags
    """Operations on tags: list, delete."""
    referrers: Referrers
    """Lists of the manifests that refer to a manifest."""

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
        """Base URL of all requests; for Docker Hub, its host differs from the registry's name."""
        return self._transport.base

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ping(self) -> None:
        """Check that a registry responds and accepts the credentials."""
        url = self._transport.base
        try:
            self._operations.call(Call("GET", url, frozenset(), OK))
        except ManifestUnknown as error:
            raise BrokenAnswer(f"{redacted(str(url))} is not an OCI registry (status 404)", url=str(url)) from error
