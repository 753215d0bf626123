"""The diff id of a layer, the digest of its uncompressed content, computed while the layer is streamed.

It uses Python's zlib instead of the indexer's inflater, so that two independent implementations must agree on every
byte.
"""

import hashlib
import zlib
from collections.abc import Callable

from soci_pipeline.errors import DamagedContent
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import Compression, layer_compression

_GZIP = 31
_PIECE = 1 << 20


class DiffId:
    """Computes the diff id from the stored bytes of a layer. zstd and unknown types are not supported.

    ``also`` is called with each piece of the uncompressed content.
    """

    def __init__(self, media_type: str, *, also: Callable[[bytes], None] | None = None) -> None:
        self._compression = layer_compression(media_type)
        self._hash = hashlib.sha256()
        self._also = also
        self._member: zlib._Decompress | None = None
        self._whole = True

    @property
    def readable(self) -> bool:
        """Whether layers of this type are supported."""
        return self._compression in (Compression.GZIP, Compression.NONE)

    def update(self, data: bytes) -> None:
        """Process the next bytes; raise `DamagedContent` if they are not valid gzip."""
        if self._compression is Compression.NONE:
            self._take(data)
        elif self._compression is Compression.GZIP:
            self._inflate(data)

    def digest(self) -> Digest | None:
        """Return the diff id, or None for an unsupported type; raise `DamagedContent` if the gzip is truncated."""
        if not self.readable:
            return None
        if not self._whole or (self._compression is Compression.GZIP and self._member is None):
            raise DamagedContent("the gzip stream is truncated")
        return Digest(f"sha256:{self._hash.hexdigest()}")

    def _take(self, piece: bytes) -> None:
        self._hash.update(piece)
        if self._also is not None:
            self._also(piece)

    def _inflate(self, data: bytes) -> None:
        full = False
        # After a full piece, output may remain even if all input is consumed.
        while data or (full and not self._whole):
            if self._member is None or self._member.eof:
                self._member = zlib.decompressobj(_GZIP)
            try:
                # Limit the output, so that a decompression bomb cannot fill the memory.
                piece = self._member.decompress(data, _PIECE)
            except zlib.error as error:
                raise DamagedContent(f"the gzip stream cannot be inflated: {error}") from error
            self._take(piece)
            full = len(piece) == _PIECE
            self._whole = self._member.eof
            data = self._member.unused_data if self._whole else self._member.unconsumed_tail
