"""The blueprint's toolchain, v1, with programs that stand for ctr and soci.

What they push is real, and so are the registry and the reading back; the real programs are the real tier's.
"""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from soci_pipeline.containerd.indexing import index_with_containerd
from soci_pipeline.errors import EngineUnavailable, ToolFailed
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import SOCI_INDEX_V1
from soci_pipeline.soci.index.convert import Conversion
from soci_pipeline.soci.index.records import IndexVersion, SociOptions
from soci_pipeline.soci.reasons import Reason
from tests.support.fake_programs import Programs
from tests.support.images import AMD64, ARM64, image_layout, index_layout

OPTIONS = SociOptions(version=IndexVersion.V1, min_layer_size=1)
PUSHED = """
from pathlib import Path
content = Path(os.environ["HOME"]) / "content"
words = sys.argv[1:]
def find(reference):
    from soci_pipeline.oci.layout import Layout
    layout = Layout.open(content)
    named = {each.annotations["io.containerd.image.name"]: each for each in layout.roots()}
    return layout, named[reference]
def push(layout, root, reference):
    from soci_pipeline.registry.client import RegistryClient
    from soci_pipeline.registry.push import push_graph
    registry, _, rest = reference.partition("/")
    with RegistryClient(registry, plain_http=True) as client:
        push_graph(layout, root, client, rest.partition(":")[0])
"""
CTR = f"""{PUSHED}
if words == ["--version"]:
    print("ctr github.com/containerd/containerd 1.7.24")
elif words[:2] == ["images", "import"]:
    import shutil
    shutil.unpack_archive(words[-1], content, "tar")
elif words[:2] == ["images", "push"] and not (content / "push-nothing").exists():
    push(*find(words[-1]), words[-1])
elif words[0] == "namespaces" and words[1] == "list" and content.exists():
    print(os.environ["CONTAINERD_NAMESPACE"])
"""
# Its "zTOC" of each layer is a few bytes: what is in one is another test's matter.
SOCI = f"""{PUSHED}
if words == ["--version"]:
    print("soci version 0.4.1 abc")
elif words == ["--help"]:
    print("   --root value  a folder")
elif words[2] == "create":
    print("layer -> ztoc")
elif words[2] == "push" and not (content / "push-no-index").exists():
    from soci_pipeline.soci.index.document import CONFIG, CONFIG_TYPES, IndexedLayer, soci_index
    from soci_pipeline.soci.index.records import IndexVersion
    layout, image = find(words[-1])
    layers = layout.read_document(image).layers
    ztocs = [layout.add_bytes(layer.digest.encode(), "application/octet-stream") for layer in layers]
    layout.add_bytes(CONFIG, CONFIG_TYPES[IndexVersion.V1])
    indexed = [IndexedLayer(layer, ztoc) for layer, ztoc in zip(layers, ztocs)]
    index = soci_index(indexed, version=IndexVersion.V1, span_size=1, build_tool="soci", subject=image)
    push(layout, layout.add_document(index), words[-1])
"""
NOTHING_LARGE_ENOUGH = """
case "$*" in
  --version) echo "soci version 0.4.1 abc" ;;
  --help) echo "   --root value  a folder" ;;
  *create*) echo "error: no ztocs created" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    made = Programs(tmp_path / "programs")
    made.folder.mkdir()
    made.add_python("ctr", CTR)
    made.add_python("soci", SOCI)
    return made


@pytest.fixture
def containerd(tmp_path: Path) -> Iterator[Path]:
    """A socket at which something listens; only the stand-ins would speak to it."""
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield path


def _index(layout: Layout, folder: Path, containerd: Path, programs: Programs) -> Conversion:
    return index_with_containerd(layout, folder / "out", options=OPTIONS, socket=containerd, env=programs.env)


def test_every_image_gets_the_index_that_soci_pushed_and_stays_as_it_was(
    tmp_path: Path, containerd: Path, programs: Programs
) -> None:
    layout = index_layout(tmp_path / "layout", attestations=True)
    made = _index(layout, tmp_path, containerd, programs)
    before, after = layout.read_document(layout.root()), made.layout.read_document(made.root)
    assert isinstance(before, ImageIndex)
    assert isinstance(after, ImageIndex)
    assert {each.digest for each in after.manifests} == {each.digest for each in before.manifests}
    assert [image.platform for image in made.images] == [AMD64, ARM64]
    for image in made.images:
        assert len(image.attestations) == 1
        assert image.soci_index is not None
        assert image.soci_index.artifact_type == SOCI_INDEX_V1
        index = made.layout.read_document(image.soci_index)
        assert isinstance(index, ImageManifest)
        assert index.subject is not None
        assert index.subject.digest == image.manifest.digest
        ztocs = {layer.ztoc for layer in image.layers}
        assert ztocs == {each.digest for each in index.children if each.digest != index.config.digest}
        assert all(made.layout.has(each) for each in index.children)


def test_the_tools_work_in_a_namespace_of_the_run_that_goes_with_it(
    tmp_path: Path, containerd: Path, programs: Programs
) -> None:
    _index(image_layout(tmp_path / "layout", AMD64), tmp_path, containerd, programs)
    assert programs.calls()[-1].startswith("ctr namespaces remove soci-pipeline-")
    assert not any("password" in call or "--user" in call for call in programs.calls())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.sock", "layout", "out", "programs"]


def test_an_image_whose_layers_are_all_small_has_the_reason_for_each(
    tmp_path: Path, containerd: Path, programs: Programs
) -> None:
    programs.add("soci", NOTHING_LARGE_ENOUGH)
    layout = image_layout(tmp_path / "layout", AMD64)
    options = OPTIONS.model_copy(update={"min_layer_size": 10 << 20})
    made = index_with_containerd(layout, tmp_path / "out", options=options, socket=containerd, env=programs.env)
    (image,) = made.images
    assert image.soci_index is None
    assert {(layer.ztoc, layer.reason) for layer in image.layers} == {(None, Reason.TOO_SMALL)}
    assert not any("push" in call for call in programs.calls() if call.startswith("soci"))


def test_an_image_that_ctr_did_not_push_is_no_result(tmp_path: Path, containerd: Path, programs: Programs) -> None:
    layout = image_layout(tmp_path / "layout", AMD64)
    (programs.folder / "content").mkdir()
    (programs.folder / "content" / "push-nothing").touch()
    programs.add("soci", NOTHING_LARGE_ENOUGH)
    with pytest.raises(ToolFailed, match=f"ctr did not push the image {layout.root().digest}"):
        _index(layout, tmp_path, containerd, programs)
    assert programs.calls()[-1].startswith("ctr namespaces remove ")


def test_an_index_that_soci_did_not_push_is_no_result(tmp_path: Path, containerd: Path, programs: Programs) -> None:
    layout = image_layout(tmp_path / "layout", AMD64)
    (programs.folder / "content").mkdir()
    (programs.folder / "content" / "push-no-index").touch()
    with pytest.raises(ToolFailed, match=f"soci pushed 0 indexes for {layout.root().digest}"):
        _index(layout, tmp_path, containerd, programs)


def test_a_containerd_that_is_gone_is_named_before_anything_is_made(tmp_path: Path, programs: Programs) -> None:
    with pytest.raises(EngineUnavailable, match=r"none\.sock"):
        _index(image_layout(tmp_path / "layout", AMD64), tmp_path, tmp_path / "none.sock", programs)
    assert not (tmp_path / "out").exists()
