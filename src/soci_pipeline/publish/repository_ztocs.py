"""zTOCs that an image published before has already, so that unchanged layers cost nothing on a fresh worker either.

The image under a tag of the same repository is read once, when the first layer is looked up. It is an offer, not a
condition: a tag that is missing, an index that cannot be read or a blob that is gone only means that the zTOC is built.
What comes from here is checked by the indexer before it is used, and is not kept in the worker's own cache.
"""

import threading

from soci_pipeline.errors import DamagedContent, InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.process import logger
from soci_pipeline.publish.existing.plan import Known
from soci_pipeline.publish.findings import Findings
from soci_pipeline.publish.image_graph import read_graph
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import RegistryError
from soci_pipeline.soci.limits import DEFAULT_LIMITS
from soci_pipeline.soci.ztoc_store import ZtocStore


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
        try:
            data = self._client.read_blob(self._repository, ztoc, limit=DEFAULT_LIMITS.ztoc)
        except (RegistryError, InvalidInput, DamagedContent) as error:
            logger().info("the zTOC %s of layer %s is built again: %s", ztoc.digest, layer_digest, error.reason)
            return None
        logger().info("layer %s: zTOC %s is taken from the tag %s", layer_digest, ztoc.digest, self._tag)
        return data

    def put(self, layer_digest: Digest, media_type: str, span_size: int, build_tool: str, data: bytes) -> None:
        """Keep a zTOC on this worker; the push brings it to the repository."""
        self._cache.put(layer_digest, media_type, span_size, build_tool, data)

    def _published(self, span_size: int) -> Known:
        with self._lock:
            if span_size not in self._known:
                self._known[span_size] = self._read(span_size)
            return self._known[span_size]

    def _read(self, span_size: int) -> Known:
        try:
            graph = read_graph(self._client, self._repository, self._tag, Findings())
        except (RegistryError, InvalidInput, DamagedContent) as error:
            logger().info("nothing is reused from the tag %s: %s", self._tag, error.reason)
            return Known({})
        return Known.of(graph, span_size)
