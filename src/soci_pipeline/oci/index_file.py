"""The ``index.json`` of an OCI image layout, which lists its images (image-spec, image-layout.md)."""

import json
from pathlib import Path

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.manifest import parse_image_index

MAX_INDEX_FILE_BYTES = 64 << 20
"""Size limit. A layout may hold many images: for a repository with 100,000 manifests and tags it has about 40 MiB."""


def parse_roots(data: bytes, where: Path, *, any_algorithm: bool = False) -> tuple[Descriptor, ...]:
    """Parse the descriptors in the ``index.json`` of a layout; raise `InvalidInput` if it is invalid."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"index.json of {where} is not valid JSON") from error
    if not isinstance(fields, dict):
        raise InvalidInput(f"index.json of {where} is not a JSON object")
    # Older layouts have no ``mediaType`` here; `parse_image_index` infers the type from the fields.
    fields.pop("mediaType", None)
    shape = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")
    # The caller has read at most MAX_INDEX_FILE_BYTES; re-encoding may need more bytes.
    return parse_image_index(shape, any_algorithm=any_algorithm, limit=2 * MAX_INDEX_FILE_BYTES).manifests
