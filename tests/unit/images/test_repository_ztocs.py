from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from soci_pipeline.images.repository_ztocs import RepositoryZtocs
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import AccessRefused, RegistryError, RegistryUnreachable
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.registry.server.serving import serving
from soci_pipeline.registry.settings import ClientSettings
from soci_pipeline.reindex.index import index_existing
from soci_pipeline.reindex.settings import IndexSettings
from soci_pipeline.soci.index.convert import Conversion, convert
from soci_pipeline.soci.index.records import SociOptions
from soci_pipeline.soci.ztoc.codec import decode, encode
from tests.support.faults import Fault, FaultPlan, Kind
from tests.support.images import image_layout
from tests.support.published import REPOSITORY, flip, stored, tag
from tests.support.registries import AT_ONCE, registry

Reuse = Callable[[RegistryClient, Layout, Path], None]
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
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
        first = _published(client, source, tmp_path / "first")
        made_here = Memory()
        store = RepositoryZtocs(client, REPOSITORY, "latest", cache=made_here)
        again = convert(source, tmp_path / "again", options=OPTIONS, ztocs=store)
    assert again.root == first.root
    assert made_here.made == {}


def test_another_span_size_or_a_missing_tag_means_that_ztocs_are_built(tmp_path: Path) -> None:
    source = image_layout(tmp_path / "image")
    other = OPTIONS.model_copy(update={"span_size": 32 << 10})
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
        _published(client, source, tmp_path / "first")
        for number, (name, options) in enumerate([("latest", other), ("never-pushed", OPTIONS)]):
            made_here = Memory()
            store = RepositoryZtocs(client, REPOSITORY, name, cache=made_here)
            convert(source, tmp_path / f"again{number}", options=options, ztocs=store)
            assert len(made_here.made) == 2


def test_a_forged_ztoc_in_the_registry_is_built_again(tmp_path: Path) -> None:
    source = image_layout(tmp_path / "image")
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
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
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
        first = _published(client, source, tmp_path / "first")
        ztocs = [layer.ztoc for layer in first.images[0].layers if layer.ztoc]
        flip(stored(tmp_path / "registry").blob_path(ztocs[0]), position=100)
        made_here = Memory()
        store = RepositoryZtocs(client, REPOSITORY, "latest", cache=made_here)
        again = convert(source, tmp_path / "again", options=OPTIONS, ztocs=store)
    assert again.root == first.root
    assert len(made_here.made) == 1


@contextmanager
def _faulty(folder: Path, fault: Fault) -> Iterator[RegistryClient]:
    """The registry in a folder with one fault, and a client that asks once."""
    timeout = ClientSettings(attempts=1, settle_time=0)
    with (
        serving(folder, middleware=FaultPlan([fault]).middleware) as address,
        RegistryClient(address, settings=timeout) as client,
    ):
        yield client


def _reuse_in_build(client: RegistryClient, source: Layout, folder: Path) -> None:
    store = RepositoryZtocs(client, REPOSITORY, "latest", cache=Memory())
    convert(source, folder, options=OPTIONS, ztocs=store)


def _reuse_in_registry(client: RegistryClient, source: Layout, folder: Path) -> None:
    options = OPTIONS.model_copy(update={"reuse_from": "latest"})
    image = ImageReference.parse(f"{client.registry}/{REPOSITORY}:plain")
    assert index_existing(client, image, IndexSettings(soci=options, folder=folder.parent)).changed


@pytest.mark.parametrize("reuse", [_reuse_in_build, _reuse_in_registry])
@pytest.mark.parametrize("status", [400, 404, 500])
def test_a_tag_that_cannot_be_read_is_no_reason_to_fail(tmp_path: Path, reuse: Reuse, status: int) -> None:
    source = image_layout(tmp_path / "image")
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
        _published(client, source, tmp_path / "first")
        tag(client, source, source.root(), "plain")
    fault = Fault("GET", "manifests/latest", times=9, status=status, code="")
    with _faulty(tmp_path / "registry", fault) as client:
        reuse(client, source, tmp_path / "again")


@pytest.mark.parametrize("reuse", [_reuse_in_build, _reuse_in_registry])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("GET", "manifests/latest", times=9, status=403, code="DENIED"), AccessRefused),
        (Fault("GET", "manifests/latest", times=9, kind=Kind.LOST_ANSWER), RegistryUnreachable),
    ],
)
def test_a_registry_that_refuses_the_login_or_is_gone_fails_before_the_work(
    tmp_path: Path, reuse: Reuse, fault: Fault, expected: type[RegistryError]
) -> None:
    source = image_layout(tmp_path / "image")
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
        _published(client, source, tmp_path / "first")
        tag(client, source, source.root(), "plain")
    with _faulty(tmp_path / "registry", fault) as client, pytest.raises(expected):
        reuse(client, source, tmp_path / "again")
