"""Hard links that no extractor can make are found; those that one can make are not, however they are written."""

import tarfile

import pytest

from soci_pipeline.oci.layout import Layout
from soci_pipeline.registry.client import RegistryClient
from tests.support.images import AMD64, Layer, gzip_layer
from tests.support.indexed import indexed
from tests.support.tars import Entry, directory, gzipped, hardlink, noise, symlink, tar
from tests.support.verified import faults, layers_of, published

BASE = gzip_layer({"base/file": noise(5000), "base/other": b"x", "keep": b"y"})
DANGLING = [Entry("etc/f", b"first"), hardlink("etc/kept", "etc/gone")]


def layer(*entries: Entry) -> Layer:
    return Layer(gzipped(tar(entries)))


@pytest.mark.parametrize(
    ("mode", "which"), [("sample", [0, 1]), ("all", [0, 1]), ("all", [0]), ("all", []), ("sample", [1])]
)
def test_a_hard_link_without_a_target_is_found(
    client: RegistryClient, layout: Layout, mode: str, which: list[int]
) -> None:
    image = indexed(layout, AMD64, [BASE, layer(*DANGLING)], indexed_layers=which)
    found = faults(client, published(client, layout, image), mode)
    upper = layers_of(layout, image)[1]
    assert found == (
        f"linux/amd64 layer {upper.digest}: its hard link 'etc/kept' cannot be unpacked: "
        "the target 'etc/gone' does not precede it in its layer"
    )


@pytest.mark.parametrize(
    "entries",
    [
        [hardlink("a", "b"), Entry("b", b"later")],
        [directory("d"), hardlink("a", "d")],
        [Entry("b", b"x"), directory("b"), hardlink("a", "b")],
        [hardlink("a", "a")],
        [symlink("s", "nowhere"), hardlink("a", "s/file")],
        [symlink("s", "s"), hardlink("a", "s/file")],
        [Entry("base/.wh.file"), hardlink("a", "base/file")],
        [Entry(".wh.base"), hardlink("a", "base/file")],
        [Entry("base/.wh..wh..opq"), hardlink("a", "base/file")],
        [Entry("base/file", kind=tarfile.DIRTYPE, mode=0o755), hardlink("a", "base/file")],
        [hardlink("a", "x/" * 3000 + "y")],
        [Entry("b", b"x"), Entry(".wh.b"), hardlink("a", "b")],
    ],
)
@pytest.mark.parametrize("mode", ["sample", "all"])
def test_a_target_that_is_not_there_when_the_link_is_made_does_not_count(
    client: RegistryClient, layout: Layout, entries: list[Entry], mode: str
) -> None:
    image = indexed(layout, AMD64, [BASE, layer(*entries)])
    found = faults(client, published(client, layout, image), mode)
    assert "its hard link 'a' cannot be unpacked" in found
    assert ("comes later" in found) == (entries[-1].name == "b")


@pytest.mark.parametrize(
    "entries",
    [
        [Entry("b", b"x"), hardlink("a", "b")],
        [Entry("./b", b"x"), hardlink("./a", "/b")],
        [Entry("d/b", b"x"), hardlink("a", "./d//b"), hardlink("c", "a")],
        [symlink("b", "nowhere"), hardlink("a", "b")],
        [Entry("d/b", b"x"), symlink("s", "d"), hardlink("a", "s/b")],
        [symlink("s", "/d"), Entry("s/b", b"x"), hardlink("a", "d/b")],
        [Entry("b", b"first"), hardlink("kept", "b"), Entry("b", b"second, longer"), hardlink("new", "b")],
        [Entry("dev", kind=tarfile.CHRTYPE, device=(1, 3)), hardlink("a", "dev")],
    ],
)
@pytest.mark.parametrize("mode", ["sample", "all"])
@pytest.mark.parametrize("which", [[0, 1], [0], [1]])
def test_a_link_that_an_extractor_can_make_is_right(
    client: RegistryClient, layout: Layout, entries: list[Entry], mode: str, which: list[int]
) -> None:
    image = indexed(layout, AMD64, [BASE, layer(*entries)], indexed_layers=which)
    assert faults(client, published(client, layout, image), mode) == ""


def test_many_links_without_a_target_are_counted(client: RegistryClient, layout: Layout) -> None:
    image = indexed(layout, AMD64, [layer(*(hardlink(f"link-{number}", "gone") for number in range(30)))])
    found = faults(client, published(client, layout, image)).splitlines()
    assert len(found) == 6
    assert any(line.endswith("and 25 more hard links without a target") for line in found)


@pytest.mark.parametrize(
    "entries",
    [
        [hardlink("a", "base/file")],
        [directory("base"), hardlink("a", "base/file")],
        [symlink("s", "../../base"), hardlink("a", "s/file")],
        [Entry("base/.wh.other"), hardlink("a", "base/file")],
        [Entry("usr/lib/file", b"x"), hardlink("a", "lib/file")],
    ],
)
@pytest.mark.parametrize("mode", ["sample", "all"])
def test_a_target_in_a_layer_below_does_not_count(
    client: RegistryClient, layout: Layout, entries: list[Entry], mode: str
) -> None:
    """With overlay file systems each layer is unpacked into an empty folder; `test_containerd.py` shows that."""
    below = layer(Entry("base/file", b"x"), symlink("lib", "usr/lib"))
    image = indexed(layout, AMD64, [below, layer(*entries)])
    found = faults(client, published(client, layout, image), mode)
    assert "its hard link 'a' cannot be unpacked" in found


@pytest.mark.parametrize("mode", ["sample", "all"])
def test_a_layer_below_that_cannot_be_read_does_not_matter(client: RegistryClient, layout: Layout, mode: str) -> None:
    unreadable = layer(Entry("g", b"52 comment=" + b"0" * 40 + b"\n", kind=b"g"), Entry("etc/gone", b"x"))
    image = indexed(layout, AMD64, [unreadable, layer(*DANGLING)], indexed_layers=[1])
    assert "its hard link 'etc/kept' cannot be unpacked" in faults(client, published(client, layout, image), mode)
