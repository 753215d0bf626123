"""The blobs of a repository (distribution-spec, "Pulling blobs" and "Pushing blobs")."""

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.manifest import MAX_MANIFEST_BYTES
from soci_pipeline.registry import download, scopes
from soci_pipeline.registry.errors import BlobUnknown, ContentMismatch, ManifestUnknown
from soci_pipeline.registry.operations import OK, Operations
from soci_pipeline.registry.transport import Call, is_size
from soci_pipeline.registry.upload import Upload
from soci_pipeline.registry.upload_ways import UploadWays
from soci_pipeline.retry import with_retries


class Blobs:
    """The blobs of one registry, by repository and descriptor."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._ways = UploadWays(operations.settings.part_size)

    def exists(self, repository: str, descriptor: Descriptor) -> bool:
        """Whether the repository has that blob; raises `ContentMismatch` if its size differs."""
        url = self._operations.url(f"{repository}/blobs/{descriptor.digest}")
        try:
            answer = self._operations.head(Call("HEAD", url, scopes.pull(repository), OK))
        except (BlobUnknown, ManifestUnknown):
            return False
        length = answer.headers.get("content-length", "")
        if is_size(length) and int(length) != descriptor.size:
            reason = f"blob {descriptor.digest} of {repository} has {length} bytes, not {descriptor.size}"
            raise ContentMismatch(reason, url=str(url))
        return True

    def read(self, repository: str, descriptor: Descriptor, limit: int = MAX_MANIFEST_BYTES) -> bytes:
        """Return a small blob, verified; raise `InvalidInput` if its descriptor exceeds ``limit`` bytes."""
        if descriptor.size > limit:
            raise InvalidInput(f"blob {descriptor.digest} of {descriptor.size} bytes exceeds the limit of {limit}")
        with self.stream(repository, descriptor) as chunks:
            return b"".join(chunks)

    @contextlib.contextmanager
    def stream(self, repository: str, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """Stream a blob in chunks, resuming after a lost connection.

        The iterator raises `ContentMismatch`, at its end at the latest, if the bytes do not match the descriptor.
        """
        deadline = self._operations.deadline(descriptor.size)
        chunks = download.stream(self._operations.transport, repository, descriptor, deadline)
        with contextlib.closing(chunks):
            yield chunks

    def read_range(self, repository: str, digest: Digest, start: int, end_exclusive: int) -> bytes:
        """Return a byte range of a blob; it is not verified, because a part of a blob has no digest."""
        transport = self._operations.transport
        deadline = self._operations.deadline(end_exclusive - start)
        return with_retries(
            lambda: download.read_range(transport, repository, digest, start, end_exclusive, deadline),
            self._operations.settings,
            deadline,
        )

    def upload(
        self,
        repository: str,
        descriptor: Descriptor,
        open_source: Callable[[], BinaryIO],
        *,
        mount_from: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> bool:
        """Upload a blob; return False if it already existed or was mounted from ``mount_from``.

        ``open_source`` opens the local copy, once per session. ``on_bytes`` receives the bytes sent since its last
        call; a negative number subtracts bytes that must be sent again. Setting ``stop`` ends the upload with
        `Stopped`.
        """
        deadline = self._operations.deadline(descriptor.size, stop)
        deadline.check()
        if self.exists(repository, descriptor):
            return False
        upload = Upload(
            self._operations.transport,
            repository,
            descriptor,
            open_source,
            deadline,
            ways=self._ways,
            on_bytes=on_bytes,
        )
        sent = upload.run(mount_from=mount_from)
        self._operations.recent.add(repository, descriptor.digest)
        return sent

    def probe_upload(self, repository: str) -> bool:
        """Open an upload session and cancel it, to check the push permission without storing anything.

        Returns whether the registry cancelled the session; if not, the session expires by itself. Raises
        `RegistryError`.
        """
        nothing = Descriptor(media_type="application/octet-stream", digest=Digest.of(b""), size=0)
        deadline = self._operations.deadline()
        upload = Upload(self._operations.transport, repository, nothing, io.BytesIO, deadline)
        return with_retries(upload.probe_session, self._operations.settings, deadline)

    def upload_bytes(self, repository: str, data: bytes, media_type: str) -> Descriptor:
        """Upload a small blob, unless it exists; return its descriptor."""
        descriptor = Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))
        self.upload(repository, descriptor, lambda: io.BytesIO(data))
        return descriptor
