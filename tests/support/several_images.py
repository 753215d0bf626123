"""Layouts with several images of one platform, as umoci, `skopeo copy` and `docker save a b` write them."""

from collections.abc import Sequence
from pathlib import Path

from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from tests.support.images import AMD64, add_image, gzip_layer
from tests.support.tars import text


def several_images(path: Path, names: Sequence[str]) -> Layout:
    """Create a layout whose ``index.json`` lists a different image of one platform for each name."""
    layout = Layout.create(path)
    images = [
        add_image(layout, AMD64, [gzip_layer({"app": text(1000, seed=number)})], env=[f"NAME={name}"])
        for number, name in enumerate(names)
    ]
    annotations = [{"org.opencontainers.image.ref.name": name} for name in names]
    named = zip(images, annotations, strict=True)
    layout.set_roots([image.annotated(annotations=each, platform=None) for image, each in named])
    return layout


def one_platform_twice(path: Path) -> Layout:
    """Create a layout with one image index that lists two different images of one platform."""
    layout = several_images(path, ["one", "two"])
    images = [root.annotated(annotations={}, platform=AMD64) for root in layout.roots()]
    layout.set_roots([layout.add_document(ImageIndex(manifests=tuple(images)))])
    return layout
