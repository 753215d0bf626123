"""Builds the zTOCs of layers in a registry: each layer is streamed once and not stored."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, cast

from soci_pipeline.errors import DamagedContent, InvalidInput, LayerNotIndexable
from soci_pipeline.images.blob_reader import BlobReader, open_blob
from soci_pipeline.log import logger
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import SOCI_LAYER
from soci_pipeline.progress import Advance, meter
from soci_pipeline.reindex.existing import ExistingImage
from soci_pipeline.reindex.image_plan import LayerPlan
from soci_pipeline.soci.reasons import Reason
from soci_pipeline.soci.ztoc.build import build_ztoc
from soci_pipeline.soci.ztoc.store import ZtocStore
from soci_pipeline.text import counted


@dataclass(frozen=True, slots=True)
class LayerResult:
    """A layer with its pushed zTOC or the reason for having none, and the number of bytes fetched for it."""

    plan: LayerPlan
    fetched: int = 0


@dataclass(frozen=True, slots=True)
class _Streamed:
    """The result of streaming a layer: its zTOC, or the reason for having none."""

    fetched: int
    ztoc: bytes = b""
    reason: Reason | None = None


def missing_in_store(
    image: ExistingImage, layers: Mapping[Digest, Descriptor], ztocs: ZtocStore | None
) -> dict[Digest, Descriptor]:
    """Return the layers whose zTOC is not in the store; the lookup counts as a use of the zTOCs found."""
    if ztocs is None:
        return dict(layers)
    return {digest: layer for digest, layer in layers.items() if ztocs.get(*_key(image, layer)) is None}


def index_layers(
    image: ExistingImage, layers: Mapping[Digest, Descriptor], ztocs: ZtocStore | None
) -> tuple[LayerResult, ...]:
    """Fetch and index layers, the largest first, and push their zTOCs."""
    jobs = image.settings.jobs
    if jobs < 1:
        raise InvalidInput(f"the number of layers in parallel must be at least 1, not {jobs}")
    ordered = sorted(layers.values(), key=lambda layer: layer.size, reverse=True)
    with (
        meter("index", sum(layer.size for layer in ordered)) as advance,
        ThreadPoolExecutor(jobs, thread_name_prefix="index") as pool,
    ):
        return tuple(pool.map(partial(_index_layer, image, ztocs, advance=advance), ordered))


def _index_layer(image: ExistingImage, ztocs: ZtocStore | None, layer: Descriptor, *, advance: Advance) -> LayerResult:
    key = _key(image, layer)
    data = ztocs.get(*key) if ztocs is not None else None
    if data is not None:
        logger().info("layer %s: its zTOC is in the cache, so the layer is not fetched", layer.digest)
        advance(layer.size)
        return LayerResult(LayerPlan(layer, ztoc=_upload(image, data)))
    streamed = _stream(image, layer, advance)
    if streamed.reason is not None:
        return LayerResult(LayerPlan(layer, reason=streamed.reason), streamed.fetched)
    if ztocs is not None:
        ztocs.put(*key, streamed.ztoc)
    return LayerResult(LayerPlan(layer, ztoc=_upload(image, streamed.ztoc)), streamed.fetched)


def _upload(image: ExistingImage, ztoc: bytes) -> Descriptor:
    return image.client.blobs.upload_bytes(image.repository, ztoc, SOCI_LAYER)


def _stream(image: ExistingImage, layer: Descriptor, advance: Advance) -> _Streamed:
    with open_blob(image.client, image.repository, layer, also=lambda piece: advance(len(piece))) as blob:
        try:
            ztoc = _built(image, layer, blob)
            return _Streamed(blob.taken, ztoc)
        except LayerNotIndexable as error:
            logger().info("layer %s gets no zTOC: %s", layer.digest, error.reason)
            return _Streamed(blob.taken, reason=Reason(error.code))
        except DamagedContent as error:
            raise DamagedContent(f"layer {layer.digest} of {image.reference}: {error.reason}") from error


def _built(image: ExistingImage, layer: Descriptor, blob: BlobReader) -> bytes:
    """Build the zTOC of a layer and read the layer to its end, where its digest is checked."""
    built = build_ztoc(
        cast("BinaryIO", blob),
        layer.media_type,
        span_size=image.settings.soci.span_size,
        build_tool=image.settings.build_tool,
        layer_size=layer.size,
    )
    blob.drain()
    entries, spans = counted(built.entries, "entry", "entries"), counted(built.spans, "span")
    logger().info("layer %s: a zTOC of %s and %s", layer.digest, entries, spans)
    return built.data


def _key(image: ExistingImage, layer: Descriptor) -> tuple[Digest, str, int, str]:
    return layer.digest, layer.media_type, image.settings.soci.span_size, image.settings.build_tool
