"""zTOCs that an image published before has already, so that unchanged layers cost nothing on a fresh worker either.

The image under a tag of the same repository is read once, when the first layer is looked up. It is an offer, not a
condition: a tag that is missing, an index that cannot be read or a blob that is gone only means that the zTOC is built.
A registry that is out of reach, or refuses the login, is not passed over: the push goes to the same repository.
What comes from here is checked by the indexer before it is used, and is not kept in the worker's own cache.
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
    """A `ZtocStore` that asks ``cache`` first and then the image under ``tag``; new zTOCs go to ``cache`` alone."""

    def __init__(self, client: RegistryClient, repository: str, tag: str, *, cache: ZtocStore) -> None:
        self._client = client
        self._repository = repository
        self._tag = tag
        self._cache = cache
        self._lock = threading.Lock()
        self._known: dict[int, Known] = {}

    def get(self, layer_digest: Digest, media_type: str, span_size: int, build_tool: str) -> bytes | None:
        """The zTOC of a layer, None where neither the cache nor the published image has it."""
        found = self._cache.get(layer_digest, media_type, span_size, build_tool)
        if found is not None:
            return found
        ztoc = self._published(span_size).ztocs.get(layer_digest)
        if ztoc is None:
            return None
        with _as_an_offer(logging.INFO, "the zTOC %s of layer %s is built again", ztoc.digest, layer_digest):
            data = self._client.blobs.read(self._repository, ztoc, limit=DEFAULT_LIMITS.ztoc)
            logger().info("layer %s: zTOC %s is taken from the tag %s", layer_digest, ztoc.digest, self._tag)
            return data
        return None

    def put(self, layer_digest: Digest, media_type: str, span_size: int, build_tool: str, data: bytes) -> None:
        """Keep a zTOC on this worker; the push brings it to the repository."""
        self._cache.put(layer_digest, media_type, span_size, build_tool, data)

    def _published(self, span_size: int) -> Known:
        with self._lock:
            if span_size not in self._known:
                self._known[span_size] = known_under(
                    self._client, self._repository, self._tag, span_size, level=logging.INFO
                )
            return self._known[span_size]


def known_under(client: RegistryClient, repository: str, tag: str, span_size: int, *, level: int) -> Known:
    """What the image under a tag knows for a span size, nothing where it cannot be read; that is logged at ``level``.

    Raises `RegistryUnreachable` and `AccessRefused`: whatever comes after needs the same repository, and would only
    fail once the layers were fetched and indexed for nothing.
    """
    with _as_an_offer(level, "nothing is reused from the tag %s of %s", tag, repository):
        return Known.of(read_graph(client, repository, tag, Findings()), span_size)
    return Known({})


@contextlib.contextmanager
def _as_an_offer(level: int, what: str, *names: str) -> Iterator[None]:
    try:
        yield
    except (RegistryUnreachable, AccessRefused):
        raise
    except (RegistryError, InvalidInput, DamagedContent) as error:
        logger().log(level, f"{what}: %s", *names, error.reason)
