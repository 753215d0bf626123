from dataclasses import dataclass, field, replace
from pathlib import Path

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.publish.repository_ztocs import RepositoryZtocs
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.convert import Conversion, convert
from soci_pipeline.soci.records import SociOptions
from soci_pipeline.soci.ztoc_codec import decode, encode
from tests.support.images import image_layout
from tests.support.published import REPOSITORY, flip, registry, stored, tag

OPTIONS = SociOptions(span_size=64 << 10, min_layer_size=0)


@dataclass
class Memory:
    """A store that remembers what was made here."""

    made: dict[tuple[Digest, str, int, str], bytes] = field(default_factory=dict)

    def get(self, layer_digest: Digest, media_type: str, span_size: int, build_tool: str) -> bytes | None:
        return self.made.get((layer_digest, media_type, span_size, build_tool))

    def put(self, layer_digest: Digest, media_type: str, span_size: int, build_tool: str, data: bytes) -> None:
        self.made[layer_digest, media_type, span_size, build_tool] = data


def _published(client: RegistryClient, source: Layout, folder: Path) -> Conversion:
    first = convert(source, folder, options=OPTIONS)
    tag(client, first.layout, first.root, "latest")
    return first


def test_a_fresh_worker_takes_the_ztocs_of_the_published_image(tmp_path: Path) -> None:
    source = image_layout(tmp_path / "image")
    with registry(tmp_path / "registry") as client:
        first = _published(client, source, tmp_path / "first")
        made_here = Memory()
        store = RepositoryZtocs(client, REPOSITORY, "latest", cache=made_here)
        again = convert(source, tmp_path / "again", options=OPTIONS, ztocs=store)
    assert again.root == first.root
    assert made_here.made == {}


def test_another_span_size_or_a_missing_tag_means_that_ztocs_are_built(tmp_path: Path) -> None:
    source = image_layout(tmp_path / "image")
    other = OPTIONS.model_copy(update={"span_size": 32 << 10})
    with registry(tmp_path / "registry") as client:
        _published(client, source, tmp_path / "first")
        for number, (name, options) in enumerate([("latest", other), ("never-pushed", OPTIONS)]):
            made_here = Memory()
            store = RepositoryZtocs(client, REPOSITORY, name, cache=made_here)
            convert(source, tmp_path / f"again{number}", options=options, ztocs=store)
            assert len(made_here.made) == 2


def test_a_forged_ztoc_in_the_registry_is_built_again(tmp_path: Path) -> None:
    source = image_layout(tmp_path / "image")
    with registry(tmp_path / "registry") as client:
        first = convert(source, tmp_path / "first", options=OPTIONS)
        tag(client, first.layout, _with_forged_ztocs(first), "latest")
        made_here = Memory()
        store = RepositoryZtocs(client, REPOSITORY, "latest", cache=made_here)
        again = convert(source, tmp_path / "again", options=OPTIONS, ztocs=store)
    assert again.root == first.root
    assert len(made_here.made) == 2


def _with_forged_ztocs(conversion: Conversion) -> Descriptor:
    """The same image with a SOCI index whose zTOCs make every file one of root's that all may run as root."""
    layout, (image,) = conversion.layout, conversion.images
    assert image.soci_index is not None
    soci_index = layout.read_document(image.soci_index)
    assert isinstance(soci_index, ImageManifest)
    layers = []
    for layer in soci_index.layers:
        ztoc = decode(layout.read(layer, limit=1 << 24))
        forged = replace(ztoc, entries=tuple(entry._replace(mode=0o4777, uid=0) for entry in ztoc.entries))
        layers.append(layout.add_bytes(encode(forged), layer.media_type).annotated(annotations=layer.annotations))
    made = layout.add_document(soci_index.replaced(layers=tuple(layers)))
    listed = image.soci_index.annotated(digest=made.digest, size=made.size)
    return layout.add_document(ImageIndex(manifests=(image.manifest, listed)))


def test_a_ztoc_that_is_damaged_in_the_registry_is_built_again(tmp_path: Path) -> None:
    source = image_layout(tmp_path / "image")
    with registry(tmp_path / "registry") as client:
        first = _published(client, source, tmp_path / "first")
        ztocs = [layer.ztoc for layer in first.images[0].layers if layer.ztoc]
        flip(stored(tmp_path / "registry").blob_path(ztocs[0]), position=100)
        made_here = Memory()
        store = RepositoryZtocs(client, REPOSITORY, "latest", cache=made_here)
        again = convert(source, tmp_path / "again", options=OPTIONS, ztocs=store)
    assert again.root == first.root
    assert len(made_here.made) == 1
