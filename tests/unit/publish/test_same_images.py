"""Whether a rebuild is the same images as a tag holds: content counts, and when or how it was made does not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.same_images import compare
from soci_pipeline.registry.client import RegistryClient
from tests.support.images import AMD64, ARM64, Layer, add_attestation, add_image, gzip_layer
from tests.support.indexed import indexed, some_layers
from tests.support.published import REPOSITORY, flip, stored, tag, upload

LAYERS = [gzip_layer({"etc/os-release": b"12.1"}), gzip_layer({"app/main": b"print()"})]
Change = Callable[[dict[str, Any]], None]


def image(
    layout: Layout, platform: Platform = AMD64, layers: list[Layer] = LAYERS, *, change: Change = lambda _: None
) -> Descriptor:
    """An image as a builder leaves it, with a config that says when and how."""
    plain = add_image(layout, platform, layers)
    manifest = layout.read_document(plain)
    assert isinstance(manifest, ImageManifest)
    config = json.loads(layout.read(manifest.config))
    config |= {"created": "2026-11-25T03:17:00Z", "history": [{"created": "2026-11-25T03:17:00Z", "created_by": "x"}]}
    config["config"] = {"Cmd": ["/app/main"], "Image": "sha256:1", "Labels": {"team": "shop"}}
    change(config)
    described = layout.add_bytes(json.dumps(config).encode(), manifest.config.media_type)
    changed = layout.add_document(ImageManifest(config=described, layers=manifest.layers))
    return changed.annotated(platform=platform)


def under(
    client: RegistryClient, layout: Layout, *entries: Descriptor, name: str | None = None, **annotations: str
) -> Descriptor:
    index = layout.add_document(ImageIndex(manifests=entries, annotations=annotations))
    upload(client, layout, index)
    if name is not None:
        tag(client, layout, index, name)
    return index


def said(client: RegistryClient, made: Descriptor) -> str | None:
    return compare(client, REPOSITORY, made.digest, "nightly").difference


def _set(path: str, value: Any) -> Change:
    def change(config: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        for name in parents:
            config = config.setdefault(name, {})
        config[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("created", "2026-11-26T03:17:00Z"),
        _set("history", [{"created_by": "another builder"}]),
        _set("config/Image", "sha256:2"),
        _set("config/Hostname", "4f1c"),
        _set("config/Volumes", None),
        _set("config/Labels", {"team": "shop", "org.opencontainers.image.revision": "c0ffee"}),
        _set("moby.buildkit.buildinfo.v1", "e30="),
    ],
)
def test_a_rebuild_of_the_same_content_is_the_same(client: RegistryClient, layout: Layout, change: Change) -> None:
    under(client, layout, image(layout), image(layout, ARM64), name="nightly", made="yesterday")
    again = image(layout, change=change)
    made = under(client, layout, again, image(layout, ARM64), add_attestation(layout, again), made="today")
    assert said(client, made) is None


@pytest.mark.parametrize(
    ("change", "layers", "expected"),
    [
        (
            _set("created", "x"),
            [gzip_layer({"etc/os-release": b"12.2"}), LAYERS[1]],
            "linux/amd64 has different layers",
        ),
        (_set("created", "x"), LAYERS[:1], "linux/amd64 has different layers"),
        (_set("config/Cmd", ["/app/other"]), LAYERS, "linux/amd64 has different settings"),
        (_set("config/Env", ["A=1"]), LAYERS, "linux/amd64 has different settings"),
        (_set("config/Labels/team", "till"), LAYERS, "linux/amd64 has different settings"),
    ],
)
def test_another_base_layer_or_setting_is_told(
    client: RegistryClient, layout: Layout, change: Change, layers: list[Layer], expected: str
) -> None:
    under(client, layout, image(layout), image(layout, ARM64), name="nightly")
    made = under(client, layout, image(layout, layers=layers, change=change), image(layout, ARM64))
    assert said(client, made) == expected


def test_other_platforms_are_not_the_same(client: RegistryClient, layout: Layout) -> None:
    under(client, layout, image(layout), name="nightly")
    made = under(client, layout, image(layout), image(layout, ARM64))
    assert said(client, made) == "nightly has linux/amd64, but this is linux/amd64, linux/arm64"


def test_an_image_that_was_not_indexed_before_is_not_the_same(client: RegistryClient, layout: Layout) -> None:
    layers = some_layers()
    under(client, layout, add_image(layout, AMD64, layers), name="nightly")
    found = indexed(layout, AMD64, layers)
    assert found.soci_index is not None
    made = under(client, layout, found.manifest, found.soci_index)
    assert said(client, made) == "linux/amd64 has different zTOCs"
    under(client, layout, found.manifest, found.soci_index, name="nightly", made="yesterday")
    assert said(client, made) is None


def test_the_first_night_has_nothing_to_compare_with(client: RegistryClient, layout: Layout) -> None:
    made = under(client, layout, image(layout))
    assert said(client, made) == "the tag nightly does not exist"


def test_what_cannot_be_read_whole_is_published_again(client: RegistryClient, layout: Layout, tmp_path: Path) -> None:
    there = image(layout)
    under(client, layout, there, name="nightly")
    made = under(client, layout, image(layout, change=_set("created", "x")))
    flip(stored(tmp_path / "registry").blob_path(there.digest))
    assert "linux/amd64" in str(said(client, made))
