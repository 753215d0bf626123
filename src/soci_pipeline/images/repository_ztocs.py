"""Reuse zTOCs of an image published earlier, so that a worker with an empty cache need not index unchanged layers.

The image under a tag of the same repository is read once, at the first cache miss. Reuse is optional: if the tag is
missing, an index cannot be read or a blob is gone, the zTOC is built. But if the registry is unreachable or denies
access, the error is raised, since the push to the same repository would fail too. The indexer validates reused zTOCs
before it uses them; they are not stored in the worker's cache.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator

from soci_pipeline.errors import DamagedContent, InvalidInput
from soci_pipeline.images.findings import Findings
from soci_pipeline.images.graph import read_graph
from soci_pipeline.images.known_ztocs import Known
from soci_pipeline.log import logger
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import AccessRefused, RegistryError, RegistryUnreachable
from soci_pipeline.soci.limits import DEFAULT_LIMITS
from soci_pipeline.soci.ztoc.store import ZtocStore


class RepositoryZtocs:
    """A `ZtocStore` that reads ``cache`` first and then the image under ``tag``; new zTOCs are stored in ``cache``."""

    def __init__(self, client: RegistryClient, repository: str, tag: str, *, cache: ZtocStore) -> None:
        self._client = client
        self._repository = repository
        self._tag = tag
        self._cache = cache
        self._lock = threading.Lock()
        self._known: dict[int, Known] = {}

    def get(self, layer_digest: Digest, media_type: str, span_size: int, build_tool: str) -> bytes | None:
        """Return the zTOC of a layer, or None if neither the cache nor the published image has it."""
        found = self._cache.get(layer_digest, media_type, span_size, build_tool)
        if found is not None:
            return found
        ztoc = self._published(span_size).ztocs.get(layer_digest)
        if ztoc is None:
            return None
        with _log_failures(logging.INFO, "building the zTOC %s of layer %s again", ztoc.digest, layer_digest):
            data = self._client.blobs.read(self._repository, ztoc, limit=DEFAULT_LIMITS.ztoc)
            logger().info("layer %s: reusing the zTOC %s of the tag %s", layer_digest, ztoc.digest, self._tag)
            return data
        return None

    def put(self, layer_digest: Digest, media_type: str, span_size: int, build_tool: str, data: bytes) -> None:
        """Store a zTOC in the worker's cache; the push uploads it to the repository."""
        self._cache.put(layer_digest, media_type, span_size, build_tool, data)

    def _published(self, span_size: int) -> Known:
        with self._lock:
            if span_size not in self._known:
                self._known[span_size] = ztocs_of_tag(
                    self._client, self._repository, self._tag, span_size, level=logging.INFO
                )
            return self._known[span_size]


def ztocs_of_tag(client: RegistryClient, repository: str, tag: str, span_size: int, *, level: int) -> Known:
    """Return the zTOCs of the image under a tag for a span size; if that fails, log at ``level`` and return none.

    Raises `RegistryUnreachable` and `AccessRefused`: later steps need the same repository and would only fail after the
    layers have been fetched and indexed.
    """
    with _log_failures(level, "nothing is reused from the tag %s of %s", tag, repository):
        return Known.of(read_graph(client, repository, tag, Findings()), span_size)
    return Known({})


@contextlib.contextmanager
def _log_failures(level: int, what: str, *names: str) -> Iterator[None]:
    try:
        yield
    except (RegistryUnreachable, AccessRefused):
        raise
    except (RegistryError, InvalidInput, DamagedContent) as error:
        logger().log(level, f"{what}: %s", *names, error.reason)
