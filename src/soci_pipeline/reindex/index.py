"""Indexes an image in a registry without pulling the whole image.

Only layers that qualify and have no known zTOC are fetched, and they are indexed while they are streamed: no layer is
stored completely, on disk or in memory. zTOCs, SOCI indexes and changed manifests are pushed by digest, the result is
verified, and then the tag moves, or ``<tag><suffix>`` is written if tags must not move. Everything else in the image
index stays: order, annotations, attestations, entries of other kinds.

An image that is already indexed with the same settings is not changed. So the push events that indexing causes, and
tags with the suffix, do not start a loop.

Each step takes the result of the previous one: read the image, plan its layers, make zTOCs and manifests, verify, and
move the tag.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from soci_pipeline.errors import TagConflict
from soci_pipeline.log import logger
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.publish.tags import Outcome, TagRecord, move_tags
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.reindex.assembly import Assembled
from soci_pipeline.reindex.existing import ExistingImage, read
from soci_pipeline.reindex.image_plan import ImagePlan, plan_images, to_fetch
from soci_pipeline.reindex.layers import index_layers, missing_in_store
from soci_pipeline.reindex.push import push
from soci_pipeline.reindex.settings import IndexSettings
from soci_pipeline.soci.index.records import IndexVersion, PlatformImage
from soci_pipeline.soci.ztoc.store import ZtocStore
from soci_pipeline.verification.mode import VerifyMode
from soci_pipeline.verification.verify import verify


class IndexedImage(BaseModel):
    """The result. In a dry run nothing was fetched or written, and ``index`` is the current digest.

    ``up_to_date``: every image that can be indexed already is, with these settings. ``bytes_to_fetch`` is the size of
    the layers that had to be fetched, or would have to be; ``lazy_layer_bytes`` the size of the layers that can be
    loaded lazily, as far as is known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: str
    index: Digest
    changed: bool
    up_to_date: bool = False
    platforms: tuple[PlatformImage, ...]
    tags: tuple[TagRecord, ...] = ()
    bytes_fetched: int = 0
    bytes_to_fetch: int = 0
    lazy_layer_bytes: int = 0
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class _Made:
    """What was pushed by digest: the layers' zTOCs and the documents that refer to them; ``fetched`` is in bytes."""

    plans: tuple[ImagePlan, ...]
    assembled: Assembled
    fetched: int


def index_existing(
    client: RegistryClient,
    reference: ImageReference,
    settings: IndexSettings | None = None,
    *,
    ztocs: ZtocStore | None = None,
    tag_lock: Callable[[], AbstractContextManager[None]] = nullcontext,
    confirm: Callable[[], None] = lambda: None,
) -> IndexedImage:
    """Add a v2 SOCI index for each platform to the image with this tag or digest.

    ``ztocs`` is a cache that is read before a layer is fetched and receives new zTOCs. ``tag_lock`` is held
    while the tag is checked again and moved. ``confirm`` is called right before the tag is written, and may raise.

    Raises `InvalidInput` for a reference without tag and digest or an incomplete image, `TagConflict` if the tag must
    not move or was moved in the meantime, `DamagedContent` for a damaged layer, `VerificationFailed` and
    `RegistryError`.
    """
    image = read(client, reference, settings or IndexSettings())
    plans = plan_images(image)
    missing = to_fetch(plans)
    if all(plan.is_done for plan in plans):
        indexed = any(layer.ztoc for plan in plans for layer in plan.layers)
        logger().debug("%s %s", reference, "is already indexed" if indexed else "has no layer that can be indexed")
        return _unchanged(image, plans)
    if image.settings.dry_run:
        return _unchanged(image, plans, missing=missing_in_store(image, missing, ztocs))
    made = _make(image, plans, missing, ztocs)
    result = _unchanged(image, made.plans, missing=missing, fetched=made.fetched)
    if not made.assembled.changed:
        return result
    tags = _release(image, made.assembled.index, tag_lock, confirm)
    return result.model_copy(
        update={
            "index": made.assembled.index.digest,
            "changed": not tags or any(record.outcome is Outcome.WRITTEN for record in tags),
            "tags": tags,
            "platforms": made.assembled.images,
        }
    )


def _make(
    image: ExistingImage,
    plans: Sequence[ImagePlan],
    missing: Mapping[Digest, Descriptor],
    ztocs: ZtocStore | None,
) -> _Made:
    """Index the layers without a known zTOC, and push everything new by digest."""
    indexed = index_layers(image, missing, ztocs)
    found = {each.plan.layer.digest: each.plan for each in indexed}
    done = tuple(plan.with_layers(found) for plan in plans)
    return _Made(done, push(image, done), sum(each.fetched for each in indexed))


def _release(
    image: ExistingImage,
    index: Descriptor,
    tag_lock: Callable[[], AbstractContextManager[None]],
    confirm: Callable[[], None],
) -> tuple[TagRecord, ...]:
    """Verify what was pushed, and move the tag if it still points at the image that was read."""
    if image.settings.verify is not VerifyMode.OFF:
        report = verify(image.client, image.repository, index.digest, mode=image.settings.verify)
        report.raise_for_findings(f"{image.reference.name}@{index.digest}")
    if image.new_tag is None:
        return ()
    with tag_lock():
        _check_unmoved(image)
        return move_tags(
            image.client,
            image.repository,
            index,
            [image.new_tag],
            mutability=image.settings.mutability,
            confirm=confirm,
        )


def _check_unmoved(image: ExistingImage) -> None:
    current, before = image.current(image.reference.tag or ""), image.graph.root.digest
    if current is None or current.digest != before:
        raise TagConflict(
            f"the tag {image.reference.tag} moved from {before} to "
            f"{current.digest if current else 'nothing'} while its image was indexed",
            advice="Index it again: the tag now points to a different image.",
        )


def _unchanged(
    image: ExistingImage,
    plans: Sequence[ImagePlan],
    *,
    missing: Mapping[Digest, Descriptor] | None = None,
    fetched: int = 0,
) -> IndexedImage:
    """Return the result for an unchanged image; the caller adds what was released."""
    lazy = {each.layer.digest: each.layer.size for plan in plans for each in plan.layers if not each.reason}
    return IndexedImage(
        reference=str(image.reference),
        index=image.graph.root.digest,
        changed=False,
        up_to_date=all(plan.is_done for plan in plans),
        platforms=tuple(_record(plan) for plan in plans),
        bytes_fetched=fetched,
        bytes_to_fetch=sum(layer.size for layer in (missing or {}).values()),
        lazy_layer_bytes=sum(lazy.values()),
        dry_run=image.settings.dry_run,
    )


def _record(plan: ImagePlan) -> PlatformImage:
    soci = next((each for each in plan.node.soci_indexes if each.version is IndexVersion.V2), None)
    return PlatformImage(
        platform=plan.node.platform,
        manifest=plan.node.descriptor,
        soci_index=soci.descriptor if soci else None,
        attestations=plan.node.attestations,
        layers=tuple(each.record for each in plan.layers),
    )
