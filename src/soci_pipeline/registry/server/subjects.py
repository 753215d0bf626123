"""Index of a repository's manifests by their subject, for the referrers API."""

import threading

from soci_pipeline.errors import HostileArchive, InvalidInput
from soci_pipeline.oci import layout_files
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import MAX_MANIFEST_BYTES, parse
from soci_pipeline.registry.referrers import entry_of
from soci_pipeline.registry.server.catalogue import Catalogue


class Subjects:
    """The manifests by subject. Each is read once: when it is pushed, or at the first request for referrers."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._subjects: dict[Digest, Digest | None] = {}
        self._listed: dict[Digest, dict[Digest, Descriptor]] = {}

    def add(self, descriptor: Descriptor) -> None:
        """Read a manifest and index its subject."""
        with self._lock:
            self._learn(descriptor)

    def remove(self, digest: Digest) -> None:
        """Remove a deleted manifest."""
        with self._lock:
            subject = self._subjects.pop(digest, None)
            if subject is not None:
                self._listed[subject].pop(digest, None)

    def referrers(self, subject: Digest, catalogue: Catalogue) -> list[Descriptor]:
        """Return the manifests of the catalogue whose subject is this digest, sorted by digest."""
        for descriptor in catalogue.manifests():
            # Lock for each manifest, so that pushes do not wait until thousands are read.
            if descriptor.digest not in self._subjects:
                self.add(descriptor)
        with self._lock:
            found = dict(self._listed.get(subject, {}))
        return [found[digest] for digest in sorted(found) if catalogue.manifest(digest) is not None]

    def _learn(self, descriptor: Descriptor) -> None:
        try:
            data = layout_files.read_file(
                self._layout.path, *layout_files.blob_place(descriptor.digest), limit=MAX_MANIFEST_BYTES
            )
            document = parse(data, media_type=descriptor.media_type, any_algorithm=True)
        except (OSError, InvalidInput, HostileArchive):
            self._subjects[descriptor.digest] = None
            return
        subject = document.subject.digest if document.subject else None
        self._subjects[descriptor.digest] = subject
        if subject is not None:
            self._listed.setdefault(subject, {})[descriptor.digest] = entry_of(document, descriptor.plain)
