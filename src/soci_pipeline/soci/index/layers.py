"""Index the layers of images: each layer once, largest first, several in parallel, reusing cached zTOCs."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO

from soci_pipeline.errors import DamagedContent, InvalidInput, LayerNotIndexable
from soci_pipeline.log import logger
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.media_types import SOCI_LAYER, layer_compression
from soci_pipeline.progress import Advance, meter
from soci_pipeline.soci.index.document import IndexedLayer
from soci_pipeline.soci.limits import DEFAULT_LIMITS, Limits
from soci_pipeline.soci.reasons import Reason, reason_by_descriptor
from soci_pipeline.soci.ztoc.build import build_ztoc
from soci_pipeline.soci.ztoc.codec import Ztoc, decode
from soci_pipeline.soci.ztoc.sample import check_sample
from soci_pipeline.soci.ztoc.store import ZtocStore

LayerKey = tuple[Digest, str]


@dataclass(frozen=True)
class LayerIndexer:
    """Indexes layers of ``source`` and writes zTOCs to ``target``. Sizes are in bytes.

    ``keep_tocs`` keeps the decoded zTOCs in the results, which takes a lot of memory.
    """

    source: Layout
    target: Layout
    span_size: int
    min_layer_size: int
    build_tool: str
    keep_tocs: bool = False
    ztocs: ZtocStore | None = None
    limits: Limits = DEFAULT_LIMITS

    def index(self, layers: Iterable[Descriptor], *, jobs: int) -> dict[LayerKey, IndexedLayer]:
        """Index each distinct layer, ``jobs`` in parallel.

        The result of a valid layer that cannot be indexed contains the reason. Raises `DamagedContent` for a corrupt
        layer and `HostileArchive` for one that exceeds a limit.
        """
        if jobs < 1:
            raise InvalidInput(f"the number of layers in parallel must be at least 1, not {jobs}")
        distinct = {layer_key(layer): layer for layer in layers}
        largest_first = sorted(distinct.items(), key=lambda item: item[1].size, reverse=True)
        done: dict[LayerKey, IndexedLayer] = {}
        total = sum(layer.size for layer in distinct.values())
        with (
            meter("index", total) as advance,
            ThreadPoolExecutor(jobs, thread_name_prefix="index") as pool,
        ):
            work = {pool.submit(self._index_measured, layer, advance): key for key, layer in largest_first}
            try:
                for future in as_completed(work):
                    done[work[future]] = future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return done

    def _index_measured(self, layer: Descriptor, advance: Advance) -> IndexedLayer:
        read = 0

        def count(size: int) -> None:
            nonlocal read
            read += size
            advance(size)

        found = self.index_layer(layer, on_bytes=count)
        # Cached and skipped layers were not read; count them as done anyway.
        advance(layer.size - read)
        return found

    def index_layer(self, layer: Descriptor, *, on_bytes: Advance | None = None) -> IndexedLayer:
        """Index one layer and write its zTOC to ``target``, or return the reason why it has none."""
        reason = reason_in(self.source, layer, self.min_layer_size)
        if reason is not None:
            return IndexedLayer(layer, reason=reason)
        try:
            data, toc, needs_xattrs = self._ztoc_of(layer, on_bytes)
        except LayerNotIndexable as error:
            if error.code == Reason.TRAILING_BYTES:
                logger().warning("layer %s may prevent the image from starting: %s", layer.digest, error)
            return IndexedLayer(layer, reason=Reason(error.code))
        ztoc = self.target.add_bytes(data, SOCI_LAYER)
        indexed = IndexedLayer(layer, ztoc=ztoc, needs_xattrs=needs_xattrs)
        return replace(indexed, toc=decode(data) if toc is None else toc) if self.keep_tocs else indexed

    def _ztoc_of(self, layer: Descriptor, on_bytes: Advance | None) -> tuple[bytes, Ztoc | None, bool]:
        """Return the bytes of a layer's zTOC, its decoded form if available, and whether xattrs are needed."""
        key = (layer.digest, layer.media_type, self.span_size, self.build_tool)
        known = self.ztocs.get(*key) if self.ztocs is not None else None
        toc = None if known is None else self._checked(known, layer)
        if known is not None and toc is not None:
            return known, toc, toc.needs_xattrs
        with self.source.open_blob(layer) as blob:
            built = build_ztoc(
                blob,
                layer.media_type,
                span_size=self.span_size,
                build_tool=self.build_tool,
                layer_size=layer.size,
                layer_digest=layer.digest,
                limits=self.limits,
                on_bytes=on_bytes,
            )
            self.source.mark_verified(layer.digest, os.fstat(blob.fileno()))
        if self.ztocs is not None:
            self.ztocs.put(*key, built.data)
        return built.data, None, built.needs_xattrs

    def _checked(self, data: bytes, layer: Descriptor) -> Ztoc | None:
        """Decode a cached zTOC and check it against a sample of the layer; return None if they do not match.

        Verification in mode `all` reads the rest of the layer.
        """
        try:
            toc = decode(data)
            made_for = (toc.compressed_size, toc.span_size, toc.build_tool, toc.compression)
            if made_for != (layer.size, self.span_size, self.build_tool, layer_compression(layer.media_type)):
                raise DamagedContent("it belongs to a different layer")
            with self.source.open_blob(layer) as blob:
                check_sample(toc, Digest.of(data), partial(_read_range, blob))
        except DamagedContent as error:
            logger().warning("ignoring a stored zTOC of layer %s: %s", layer.digest, error.reason)
            return None
        return toc


def _read_range(blob: BinaryIO, start: int, end: int) -> bytes:
    blob.seek(start)
    return blob.read(end - start)


def reason_in(layout: Layout, layer: Descriptor, min_layer_size: int) -> Reason | None:
    """Like `reason_by_descriptor`, for a layer that may be in ``layout``."""
    return reason_by_descriptor(layer, min_layer_size, is_here=layout.has(layer))


def layer_key(layer: Descriptor) -> LayerKey:
    """Return the key that identifies a layer, whatever its annotations are."""
    return layer.digest, layer.media_type
