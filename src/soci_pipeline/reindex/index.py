"""Index an image that is in a registry already, without having it here.

Only layers that qualify and have no known zTOC are fetched, and they are indexed as they stream by: no layer is kept
whole, on disk or in memory. zTOCs, SOCI indexes and changed manifests are pushed by digest, the result is verified,
and then the tag moves, or ``<tag><suffix>`` is written where tags must not move. Everything else in the image index
stays: order, annotations, attestations, entries of other kinds.

An image that is indexed with the same settings is left alone. So the push event that this very work causes, and tags
with the suffix, start no loop.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from pydantic import BaseModel, ConfigDict

from soci_pipeline.errors import DamagedContent, InvalidInput, LayerNotIndexable, TagConflict
from soci_pipeline.images.blob_reader import open_blob
from soci_pipeline.images.findings import Findings
from soci_pipeline.images.graph import ImageGraph, read_graph
from soci_pipeline.images.known_ztocs import Known
from soci_pipeline.images.repository_ztocs import known_under
from soci_pipeline.log import logger
from soci_pipeline.machine.working_folder import working_folder
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageManifest, parse_image_manifest
from soci_pipeline.oci.media_types import IN_TOTO, SOCI_LAYER
from soci_pipeline.progress import Advance, meter
from soci_pipeline.publish.tag_names import check_tag
from soci_pipeline.publish.tags import Outcome, TagRecord, move_tags
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.registry.tag_mutability import TagMutability
from soci_pipeline.reindex.assembly import Assembled, assemble
from soci_pipeline.reindex.plan import ImagePlan, LayerPlan, plan_image, to_fetch
from soci_pipeline.soci.index.records import IndexVersion, PlatformImage, SociOptions
from soci_pipeline.soci.reasons import Reason
from soci_pipeline.soci.ztoc.build import build_ztoc
from soci_pipeline.soci.ztoc.build_tool import BUILD_TOOL
from soci_pipeline.soci.ztoc.store import ZtocStore
from soci_pipeline.text import counted
from soci_pipeline.verify.mode import VerifyMode
from soci_pipeline.verify.verify import verify


class IndexedImage(BaseModel):
    """What came of it. In a dry run nothing was fetched or written, and ``index`` is what is there now.

    ``up_to_date``: each image that can be is indexed with these settings already. ``bytes_to_fetch`` are the layers
    that had to be fetched, or would be; ``lazy_layer_bytes`` the layers that a container then starts without, by what
    is known.
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
class Settings:
    """How an existing image is indexed. ``suffix`` writes another tag instead of moving the one that was read.

    ``folder`` is where manifests are made before they are pushed; the system's temporary folder where None.
    """

    soci: SociOptions = field(default_factory=SociOptions)
    suffix: str = ""
    build_tool: str = BUILD_TOOL
    mutability: TagMutability = field(default_factory=TagMutability)
    verify: VerifyMode = VerifyMode.SAMPLE
    jobs: int = 1
    dry_run: bool = False
    folder: Path | None = None


def index_existing(
    client: RegistryClient,
    reference: ImageReference,
    settings: Settings | None = None,
    *,
    ztocs: ZtocStore | None = None,
    alone: Callable[[], AbstractContextManager[None]] = nullcontext,
    confirm: Callable[[], None] = lambda: None,
) -> IndexedImage:
    """Give the image under a tag or digest a v2 SOCI index for each platform.

    ``ztocs`` is asked before a layer is fetched, and is given what was made. ``alone`` is entered while the tag is read
    a last time and moved; it keeps others from doing so meanwhile. ``confirm`` is called right before the tag is
    written, and may raise.

    Raises `InvalidInput` for a reference without a target and an image that cannot be read whole, `TagConflict` where
    the tag may not move or moved meanwhile, `DamagedContent` for a damaged layer, `VerificationFailed` and
    `RegistryError`.
    """
    work = _Work(client, reference, settings or Settings(), ztocs, alone, confirm)
    graph = work.read()
    plans = work.plan(graph)
    missing = to_fetch(plans)
    if all(plan.is_done for plan in plans):
        indexed = any(layer.ztoc for plan in plans for layer in plan.layers)
        logger().debug("%s %s", reference, "is indexed already" if indexed else "has no layer that can be indexed")
        return work.answer(graph, plans)
    if settings is not None and settings.dry_run:
        return work.answer(graph, plans, to_fetch=work.not_at_hand(missing))
    found = work.index_layers(missing)
    done = [_with(plan, found) for plan in plans]
    assembled = work.push(graph, done)
    if not assembled.changed:
        return work.answer(graph, done, to_fetch=missing)
    return work.release(graph, assembled, done, missing)


class _Work:
    def __init__(
        self,
        client: RegistryClient,
        reference: ImageReference,
        settings: Settings,
        ztocs: ZtocStore | None,
        alone: Callable[[], AbstractContextManager[None]],
        confirm: Callable[[], None],
    ) -> None:
        if settings.soci.version is not IndexVersion.V2:
            raise InvalidInput("an existing image gets a v2 SOCI index; v1 is made while it is built")
        if reference.target is None:
            raise InvalidInput(f"{reference} names no image", advice="Add a tag or a digest.")
        if settings.suffix and reference.tag is None:
            raise InvalidInput("a suffix goes behind a tag, and the reference has none")
        self.client = client
        self.reference = reference
        self.repository = reference.repository
        self.settings = settings
        self.ztocs = ztocs
        self.alone = alone
        self.confirm = confirm
        self.target_tag = check_tag(reference.tag + settings.suffix) if reference.tag else None
        # One entry a layer; a list, because several threads add to it.
        self.taken: list[int] = []

    def read(self) -> ImageGraph:
        """The image, which has to be readable whole; and a first look at whether its tag may move."""
        findings = Findings()
        graph = read_graph(self.client, self.repository, self.reference.target or "", findings)
        if findings.found or not graph.images:
            lines = "\n".join(f"  - {each}" for each in findings.found)
            raise InvalidInput(f"{self.reference} cannot be indexed, since it is not whole:\n{lines}".rstrip(":\n"))
        moves = self.target_tag is not None and not self.settings.suffix and not self.settings.dry_run
        if moves and not self.settings.mutability.allows_moving(self.target_tag or ""):
            raise TagConflict(
                f"the tag {self.target_tag} is immutable, and the indexed image has another digest",
                advice="Give a suffix: the indexed image is then published as <tag><suffix>.",
            )
        return graph

    def plan(self, graph: ImageGraph) -> list[ImagePlan]:
        """What is to be done for each image, with the zTOCs that other tags have."""
        known = Known({})
        if self.settings.soci.reuse_from is not None:
            known |= self._known_under(self.settings.soci.reuse_from, level=logging.WARNING)
        if self.target_tag is not None and self.settings.suffix:
            known |= self._known_under(self.target_tag, level=logging.DEBUG)
        known |= Known.of(graph, self.settings.soci.span_size)
        there = {layer: ztoc for layer, ztoc in known.ztocs.items() if self.client.has_blob(self.repository, ztoc)}
        usable = Known(there, known.left_out)
        return [plan_image(image, self.settings.soci, usable) for image in graph.images]

    def _known_under(self, tag: str, *, level: int) -> Known:
        return known_under(self.client, self.repository, tag, self.settings.soci.span_size, level=level)

    def not_at_hand(self, layers: Mapping[Digest, Descriptor]) -> dict[Digest, Descriptor]:
        """Those layers whose zTOC is not in the store either; looking there counts as a use of what is found."""
        if self.ztocs is None:
            return dict(layers)
        return {digest: layer for digest, layer in layers.items() if self.ztocs.get(*self._key(layer)) is None}

    def _key(self, layer: Descriptor) -> tuple[Digest, str, int, str]:
        return layer.digest, layer.media_type, self.settings.soci.span_size, self.settings.build_tool

    def index_layers(self, layers: Mapping[Digest, Descriptor]) -> dict[Digest, LayerPlan]:
        """Fetch and index some layers; the zTOCs are in the registry when this returns."""
        if self.settings.jobs < 1:
            raise InvalidInput(f"{self.settings.jobs} layers at once cannot be meant")
        ordered = sorted(layers.values(), key=lambda layer: layer.size, reverse=True)
        with (
            meter("index", sum(layer.size for layer in ordered)) as advance,
            ThreadPoolExecutor(self.settings.jobs, thread_name_prefix="index") as pool,
        ):
            index = partial(self._index_layer, advance=advance)
            return {plan.layer.digest: plan for plan in pool.map(index, ordered)}

    def _index_layer(self, layer: Descriptor, advance: Advance) -> LayerPlan:
        key = self._key(layer)
        data = self.ztocs.get(*key) if self.ztocs is not None else None
        if data is None:
            try:
                data = self._stream(layer, advance)
            except LayerNotIndexable as error:
                logger().info("layer %s gets no zTOC: %s", layer.digest, error.reason)
                return LayerPlan(layer, reason=Reason(error.code))
            if self.ztocs is not None:
                self.ztocs.put(*key, data)
        else:
            logger().info("layer %s: its zTOC is in the cache, and the layer is not fetched", layer.digest)
            advance(layer.size)
        ztoc = self.client.upload_bytes(self.repository, data, SOCI_LAYER)
        return LayerPlan(layer, ztoc=ztoc)

    def _stream(self, layer: Descriptor, advance: Advance) -> bytes:
        with open_blob(self.client, self.repository, layer, also=lambda piece: advance(len(piece))) as blob:
            try:
                built = build_ztoc(
                    cast("BinaryIO", blob),
                    layer.media_type,
                    span_size=self.settings.soci.span_size,
                    build_tool=self.settings.build_tool,
                    layer_size=layer.size,
                )
                # The stream itself says at its end whether this was the layer that was asked for.
                blob.drain()
            except DamagedContent as error:
                raise DamagedContent(f"layer {layer.digest} of {self.reference}: {error.reason}") from error
            finally:
                self.taken.append(blob.taken)
        logger().info(
            "layer %s: a zTOC of %s and %s",
            layer.digest,
            counted(built.entries, "entry", "entries"),
            counted(built.spans, "span"),
        )
        return built.data

    def push(self, graph: ImageGraph, plans: Sequence[ImagePlan]) -> Assembled:
        """Push SOCI indexes, manifests and the new image index by digest, unless nothing has changed."""
        with working_folder(self.settings.folder, purpose="index") as folder:
            scratch = Layout.create(folder / "layout")
            assembled = assemble(
                graph,
                plans,
                span_size=self.settings.soci.span_size,
                build_tool=self.settings.build_tool,
                scratch=scratch,
                fetch=partial(self._fetch_attestation, scratch),
            )
            if assembled.changed and not self._is_published(assembled.index):
                for manifest in (*assembled.manifests, assembled.index):
                    self._push_manifest(scratch, manifest)
        return assembled

    def _is_published(self, index: Descriptor) -> bool:
        """Whether the very same result is under the tag with the suffix already."""
        if not self.settings.suffix or self.target_tag is None:
            return False
        current = self.client.head_manifest(self.repository, self.target_tag)
        return current is not None and current.digest == index.digest

    def _push_manifest(self, scratch: Layout, manifest: Descriptor) -> None:
        document = scratch.read_document(manifest)
        for child in document.children if isinstance(document, ImageManifest) else ():
            if scratch.has(child):
                self.client.upload_blob(self.repository, child, partial(scratch.open_blob, child))
        self.client.put_manifest(self.repository, manifest.digest, scratch.read(manifest), manifest.media_type)

    def _fetch_attestation(self, scratch: Layout, attestation: Descriptor) -> None:
        _, data = self.client.get_manifest(self.repository, attestation.digest)
        scratch.add_bytes(data, attestation.media_type)
        manifest = parse_image_manifest(data, media_type=attestation.media_type)
        # Only what may be rewritten; the rest of an artifact stays where it is.
        for blob in (manifest.config, *(layer for layer in manifest.layers if layer.media_type == IN_TOTO)):
            with self.client.stream_blob(self.repository, blob) as pieces:
                scratch.add_chunks(pieces, blob)

    def release(
        self,
        graph: ImageGraph,
        assembled: Assembled,
        plans: Sequence[ImagePlan],
        missing: Mapping[Digest, Descriptor],
    ) -> IndexedImage:
        """Verify what was pushed, and move the tag if it still is where it was."""
        index = assembled.index
        if self.settings.verify is not VerifyMode.OFF:
            report = verify(self.client, self.repository, index.digest, mode=self.settings.verify)
            report.raise_for_findings(f"{self.reference.name}@{index.digest}")
        records: tuple[TagRecord, ...] = ()
        if self.target_tag is not None:
            with self.alone():
                self._check_unmoved(graph)
                records = move_tags(
                    self.client,
                    self.repository,
                    index,
                    [self.target_tag],
                    mutability=self.settings.mutability,
                    confirm=self.confirm,
                )
        answer = self.answer(graph, plans, to_fetch=missing)
        changed = not records or any(record.outcome is Outcome.WRITTEN for record in records)
        return answer.model_copy(
            update={"index": index.digest, "changed": changed, "tags": records, "platforms": assembled.images}
        )

    def _check_unmoved(self, graph: ImageGraph) -> None:
        current = self.client.head_manifest(self.repository, self.reference.tag or "")
        if current is None or current.digest != graph.root.digest:
            raise TagConflict(
                f"the tag {self.reference.tag} moved from {graph.root.digest} to "
                f"{current.digest if current else 'nothing'} while its image was indexed",
                advice="Index it again: what is under the tag now is another image.",
            )

    def answer(
        self,
        graph: ImageGraph,
        plans: Sequence[ImagePlan],
        *,
        to_fetch: Mapping[Digest, Descriptor] | None = None,
    ) -> IndexedImage:
        """What there is to say of the image as it was read; what `release` writes comes on top of it."""
        needed = sum(layer.size for layer in (to_fetch or {}).values())
        lazy = sum(
            {each.layer.digest: each.layer.size for plan in plans for each in plan.layers if not each.reason}.values()
        )
        return IndexedImage(
            reference=str(self.reference),
            index=graph.root.digest,
            changed=False,
            up_to_date=all(plan.is_done for plan in plans),
            platforms=tuple(_record(plan) for plan in plans),
            bytes_fetched=sum(self.taken),
            bytes_to_fetch=needed,
            lazy_layer_bytes=lazy,
            dry_run=self.settings.dry_run,
        )


def _with(plan: ImagePlan, found: Mapping[Digest, LayerPlan]) -> ImagePlan:
    layers = tuple(found.get(each.layer.digest, each) if each.fetch else each for each in plan.layers)
    return ImagePlan(node=plan.node, layers=layers, is_done=plan.is_done)


def _record(plan: ImagePlan) -> PlatformImage:
    soci = next((each for each in plan.node.soci_indexes if each.version is IndexVersion.V2), None)
    return PlatformImage(
        platform=plan.node.platform,
        manifest=plan.node.descriptor,
        soci_index=soci.descriptor if soci else None,
        attestations=plan.node.attestations,
        layers=tuple(each.record for each in plan.layers),
    )
