"""Verification of layers through their zTOCs, the second part after `structure`.

`LayerVerifier.sample` fetches some spans with Range requests and processes them like the snapshotter does.
`LayerVerifier.all` streams the layer once, builds its zTOC again with the same settings, and compares the two.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import BinaryIO, cast

from soci_pipeline.errors import DamagedContent, HostileArchive, LayerNotIndexable
from soci_pipeline.images.blob_reader import BlobReader, open_blob
from soci_pipeline.images.findings import Findings
from soci_pipeline.images.graph import ImageNode
from soci_pipeline.oci.annotations import IMAGE_LAYER_DIGEST
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import SOCI_LAYER
from soci_pipeline.progress import Advance
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.limits import DEFAULT_LIMITS
from soci_pipeline.soci.tar.entries import Entry
from soci_pipeline.soci.ztoc.build import build_ztoc
from soci_pipeline.soci.ztoc.codec import Ztoc, decode
from soci_pipeline.soci.ztoc.extract import read_span
from soci_pipeline.soci.ztoc.sample import header_differences, headers_in_span, is_too_large, sample_spans
from soci_pipeline.verification.diff_id import DiffId
from soci_pipeline.verification.hard_links import EntryScan, may_be_broken
from soci_pipeline.verification.structure import LayerToCheck
from soci_pipeline.verification.ztoc_difference import differences


class LayerVerifier:
    """Verifies layers and adds what is wrong to the findings; thread-safe."""

    def __init__(
        self, client: RegistryClient, repository: str, findings: Findings, *, on_bytes: Advance | None = None
    ) -> None:
        self._client = client
        self._repository = repository
        self._findings = findings
        self._on_bytes = on_bytes or (lambda _: None)
        self._lock = threading.Lock()
        self.broken_links: set[Digest] = set()
        """Layers that may have hard links without a target; see `hard_links.check_hard_links`."""

    def sample(self, item: LayerToCheck) -> None:
        """Verify some spans of an indexed layer; layers without a zTOC are not read, only checked for existence before.

        A span that would take too much memory is only counted; `all` streams it.
        """
        ztoc = self._ztoc(item)
        if ztoc is None or item.ztoc is None:
            return
        self._check_hard_links(item, ztoc.entries)
        for span in sample_spans(ztoc, item.ztoc.digest):
            if is_too_large(ztoc, span):
                self._findings.count("spans_too_large")
                continue
            with self._findings.catching(f"{item.where} span {span}"):
                self._check_span(item, ztoc, span)

    def all(self, item: LayerToCheck) -> None:
        """Read the whole layer once; verify its digest, its diff id, and its zTOC.

        A layer that may be stored elsewhere is only counted, whether the registry has it or not.
        """
        if item.may_be_foreign:
            self._findings.count("layers_held_elsewhere")
            return
        ztoc = self._ztoc(item)
        scan = EntryScan()
        diff_id = DiffId(item.layer.media_type, also=scan.feed if ztoc is None else None)

        def take(piece: bytes) -> None:
            diff_id.update(piece)
            self._on_bytes(len(piece))

        with (
            self._findings.catching(item.where),
            open_blob(self._client, self._repository, item.layer, also=take) as blob,
        ):
            try:
                if ztoc is not None:
                    self._compare(item, ztoc, blob)
            finally:
                # Read to the end, so that the digest of the whole layer is checked in any case.
                blob.drain()
            self._findings.count("bytes", blob.taken)
            self._check_diff_id(item, diff_id)
            self._check_hard_links(item, scan.entries or () if ztoc is None else ztoc.entries)

    def entries(self, image: ImageNode, layer: Descriptor) -> Sequence[Entry] | None:
        """Return the entries of a layer, from its zTOC or otherwise its tar, or None if they cannot be read."""
        with self._findings.catching(f"{image.platform} layer {layer.digest}"):
            ztoc = next(
                (each for each in _ztocs(image) if each.annotations.get(IMAGE_LAYER_DIGEST) == layer.digest), None
            )
            return self._scanned(layer) if ztoc is None else self._listed(ztoc)
        return None

    def _listed(self, ztoc: Descriptor) -> Sequence[Entry]:
        return decode(self._client.blobs.read(self._repository, ztoc, DEFAULT_LIMITS.ztoc)).entries

    def _scanned(self, layer: Descriptor) -> Sequence[Entry] | None:
        scan = EntryScan()
        contents = DiffId(layer.media_type, also=scan.feed)
        if not contents.readable or layer.may_be_foreign:
            return None
        with open_blob(self._client, self._repository, layer, also=contents.update) as blob:
            blob.drain()
        return scan.entries

    def _check_hard_links(self, item: LayerToCheck, entries: Sequence[Entry]) -> None:
        if may_be_broken(entries):
            with self._lock:
                self.broken_links.add(item.layer.digest)

    def _ztoc(self, item: LayerToCheck) -> Ztoc | None:
        """Read the zTOC and check its layer size and span size; return None if it is not usable or does not exist."""
        if item.ztoc is None:
            return None
        where = f"{item.where} zTOC {item.ztoc.digest}"
        with self._findings.catching(where):
            ztoc = decode(self._client.blobs.read(self._repository, item.ztoc, DEFAULT_LIMITS.ztoc))
            self._findings.count("ztocs")
            if ztoc.compressed_size != item.layer.size:
                self._findings.add(where, f"it is for a layer of {ztoc.compressed_size} bytes, not {item.layer.size}")
                return None
            if item.span_size is not None and item.span_size != ztoc.span_size:
                said = f"the SOCI index specifies spans of {item.span_size} bytes"
                self._findings.add(where, f"{said}, but the zTOC has spans of {ztoc.span_size}")
            return ztoc
        return None

    def _check_span(self, item: LayerToCheck, ztoc: Ztoc, span: int) -> None:
        stored = self._client.blobs.read_range(self._repository, item.layer.digest, *ztoc.stored_range(span))
        self._findings.count("spans")
        self._findings.count("bytes", len(stored))
        self._on_bytes(len(stored))
        content = read_span(ztoc, span, stored)
        start, _ = ztoc.content_range(span)
        first, last, _ = headers_in_span(ztoc.entries, start, start + len(content))
        self._findings.count("entries", last - first)
        for line in header_differences(ztoc, start, content):
            self._findings.add(f"{item.where} span {span}", line)

    def _compare(self, item: LayerToCheck, pushed: Ztoc, blob: BlobReader) -> None:
        where = f"{item.where} zTOC {item.ztoc.digest if item.ztoc else ''}"
        try:
            built = build_ztoc(
                cast("BinaryIO", blob),
                item.layer.media_type,
                span_size=pushed.span_size,
                build_tool=pushed.build_tool,
            )
        except LayerNotIndexable as error:
            self._findings.add(where, f"its layer cannot have a zTOC: {error.reason}")
            return
        except (DamagedContent, HostileArchive) as error:
            self._findings.add(item.where, error.reason)
            return
        self._findings.count("spans", built.spans)
        self._findings.count("entries", built.entries)
        if item.ztoc is not None and built.digest == item.ztoc.digest:
            return
        for line in differences(pushed, decode(built.data)):
            self._findings.add(where, line)

    def _check_diff_id(self, item: LayerToCheck, diff_id: DiffId) -> None:
        found = diff_id.digest()
        if found is None or item.diff_id is None:
            self._findings.count("diff_ids_unread")
            return
        self._findings.count("diff_ids")
        if found != item.diff_id:
            self._findings.add(
                item.where, f"its content has the digest {found}, but the diff id in the config is {item.diff_id}"
            )


def _ztocs(image: ImageNode) -> Iterator[Descriptor]:
    return (each for soci in image.soci_indexes for each in soci.manifest.layers if each.media_type == SOCI_LAYER)
