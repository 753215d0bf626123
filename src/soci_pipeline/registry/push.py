"""Pushes a manifest graph from an OCI layout: children before parents, the largest blobs first, the tag last.

Content that the registry already has is not sent again, so a push may be repeated after any failure. A push that fails
or is interrupted cancels its uploads and leaves only untagged blobs and manifests, which are harmless.
"""

import contextvars
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.media_types import IMAGE_INDEXES, IMAGE_MANIFESTS
from soci_pipeline.progress import Advance, meter
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.referrers import subject_of

_MANIFESTS = IMAGE_INDEXES | IMAGE_MANIFESTS


@dataclass(frozen=True, slots=True)
class PushReport:
    """Result of a push. Bytes count blobs and manifests; skipped content was already in the registry."""

    root: Descriptor
    bytes_uploaded: int
    bytes_skipped: int
    blobs_uploaded: int
    blobs_skipped: int


class _Tally:
    """Records uploaded and skipped content and reports the bytes of both to ``advance``."""

    def __init__(self, advance: Advance) -> None:
        self.moved = advance
        self._lock = threading.Lock()
        self.uploaded: list[Descriptor] = []
        self.skipped: list[Descriptor] = []

    def settle(self, node: Descriptor, *, uploaded: bool, reported: int) -> None:
        """Record that a blob or manifest is in the registry; ``reported`` of its bytes were already sent to `moved`."""
        with self._lock:
            (self.uploaded if uploaded else self.skipped).append(node)
        self.moved(node.size - reported)


class _Push:
    def __init__(self, layout: Layout, client: RegistryClient, repository: str) -> None:
        self.layout = layout
        self.client = client
        self.repository = repository
        self.stop = threading.Event()

    def blob(self, node: Descriptor, tally: _Tally) -> None:
        reported = 0

        def count(sent: int) -> None:
            nonlocal reported
            reported += sent
            tally.moved(sent)

        uploaded = self.client.blobs.upload(
            self.repository,
            node,
            lambda: self.layout.open_verified(node),
            on_bytes=count,
            stop=self.stop,
        )
        tally.settle(node, uploaded=uploaded, reported=reported)

    def manifest(self, node: Descriptor, tally: _Tally, tag: str | None = None) -> None:
        data = self.layout.read(node)
        there = self.client.manifests.head(self.repository, node.digest) is not None
        if not there or not self._is_listed(node, data):
            self.client.manifests.put(self.repository, node.digest, data, node.media_type)
        if tag is not None:
            current = self.client.manifests.head(self.repository, tag)
            if current is None or current.digest != node.digest:
                self.client.manifests.put(self.repository, tag, data, node.media_type)
        tally.settle(node, uploaded=not there, reported=0)

    def _is_listed(self, node: Descriptor, data: bytes) -> bool:
        """Whether a referrer is listed under its subject; a killed push may have left it without its entry."""
        found = subject_of(data, node.media_type)
        if found is None:
            return True
        return any(entry.digest == node.digest for entry in self.client.referrers.list(self.repository, found[0]))


def push_graph(
    layout: Layout,
    root: Descriptor,
    client: RegistryClient,
    repository: str,
    *,
    tag: str | None = None,
    jobs: int = 4,
    extra_roots: Sequence[Descriptor] = (),
) -> PushReport:
    """Push ``root`` and ``extra_roots`` (referrers such as v1 SOCI indexes) with everything below them.

    All manifests are pushed by digest; ``tag`` is pointed at ``root`` after everything else. ``jobs`` is the number of
    parallel blob uploads. Raises what the client raises; a failure before the last step leaves the tag unchanged.
    """
    nodes = _graph(layout, (root, *extra_roots))
    blobs = [node for node in nodes if node.media_type not in _MANIFESTS]
    manifests = [node for node in nodes if node.media_type in _MANIFESTS]
    push = _Push(layout, client, repository)
    with meter("push", sum(node.size for node in nodes)) as advance:
        tally = _Tally(advance)
        _push_blobs_in_parallel(push, sorted(blobs, key=lambda node: node.size, reverse=True), tally, jobs)
        # Users of the tag expect its referrers, so push them before the tag.
        for node in manifests:
            if node.digest != root.digest or tag is None:
                push.manifest(node, tally)
        if tag is not None:
            push.manifest(root, tally, tag)
    kinds = {node.digest for node in blobs}
    return PushReport(
        root=root,
        bytes_uploaded=sum(node.size for node in tally.uploaded),
        bytes_skipped=sum(node.size for node in tally.skipped),
        blobs_uploaded=sum(node.digest in kinds for node in tally.uploaded),
        blobs_skipped=sum(node.digest in kinds for node in tally.skipped),
    )


def _graph(layout: Layout, roots: Iterable[Descriptor]) -> list[Descriptor]:
    """Return each node once, children before parents, without absent layers that may be stored elsewhere."""
    found: dict[Digest, Descriptor] = {}
    for root in roots:
        for node in layout.walk(root):
            if layout.has(node) or not node.may_be_foreign:
                found.setdefault(node.digest, node)
    return list(found.values())


def _push_blobs_in_parallel(push: _Push, blobs: Sequence[Descriptor], tally: _Tally, jobs: int) -> None:
    if not blobs:
        return
    with ThreadPoolExecutor(max_workers=max(1, min(jobs, len(blobs))), thread_name_prefix="push") as pool:
        futures: list[Future[None]] = []
        try:
            # The run's logger is in the context, which threads do not inherit.
            futures += [pool.submit(contextvars.copy_context().run, push.blob, node, tally) for node in blobs]
            wait(futures, return_when=FIRST_EXCEPTION)
            failed = [future for future in futures if future.done() and future.exception() is not None]
            if failed:
                failed[0].result()
        except BaseException:
            push.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
