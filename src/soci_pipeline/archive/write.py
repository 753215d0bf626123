"""Write an OCI image layout as one tar file."""

import tarfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

from soci_pipeline.full_disk import full_disk_reported
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import LAYOUT_FILE, Layout
from soci_pipeline.oci.manifest import ImageIndex


def write_archive(layout: Layout, path: Path, *, roots: Sequence[Descriptor] | None = None) -> Path:
    """Write all existing blobs reachable from ``roots`` (default: those of the layout); return ``path``.

    The output is reproducible. Raises `DiskFull`, and `DamagedContent` if a blob does not match its digest; ``path`` is
    unchanged then.
    """
    tops = layout.roots() if roots is None else tuple(roots)
    part = path.with_name(f"{path.name}.part")
    try:
        with full_disk_reported(path.parent), tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as archive:
            _fill(archive, layout, tops)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _fill(archive: tarfile.TarFile, layout: Layout, tops: Sequence[Descriptor]) -> None:
    _add(archive, "oci-layout", LAYOUT_FILE)
    _add(archive, "index.json", ImageIndex(manifests=tuple(tops)).encode())
    for blob in _blobs(layout, tops):
        info = tarfile.TarInfo(str(layout.blob_path(blob.digest).relative_to(layout.path)))
        info.size = blob.size
        with layout.open_verified(blob) as content:
            archive.addfile(info, content)


def _blobs(layout: Layout, roots: Sequence[Descriptor]) -> Iterator[Descriptor]:
    found = {node.digest: node for root in roots for node in layout.walk(root) if layout.has(node)}
    return (found[digest] for digest in sorted(found))


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, BytesIO(data))
