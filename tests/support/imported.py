"""Images imported from archives with `import_image`, and the layers of the archives."""

from pathlib import Path

from soci_pipeline.builders.import_image import import_image
from soci_pipeline.oci.layout import Layout
from tests.support.images import AMD64, only_manifest
from tests.support.tars import tar_of, text

PLAIN = tar_of({"usr/share/doc.txt": text(300_000)})
OTHER = tar_of({"usr/bin/app": text(100_000, seed=1)})


def imported(source: Path, tmp_path: Path, **options: object) -> Layout:
    """Import the image for AMD64 of an archive into a layout below ``tmp_path``."""
    return import_image(source, tmp_path / "imported", platform=AMD64, **options)  # type: ignore[arg-type]


def stored(layout: Layout, number: int = 0) -> bytes:
    """Return the bytes of one layer of a layout's only image."""
    return layout.blob_path(only_manifest(layout).layers[number].digest).read_bytes()
