import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.builders.errors import OutsideSource
from soci_pipeline.builders.import_image import import_image
from soci_pipeline.builders.prebuilt import PrebuiltBuilder, download_archive, image_name
from soci_pipeline.builders.request import BuildRequest
from soci_pipeline.errors import DamagedContent, InvalidInput, SourceError
from soci_pipeline.oci.layout import Layout
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.push import push_graph
from tests.support.archives import oci_archive
from tests.support.file_server import FileServer, serving_files
from tests.support.images import ARM64, image_layout
from tests.support.registries import AT_ONCE

BODY = b"an archive"
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving_files(
        {"/image.tar": (200, BODY), "/broken": (503, b""), "/busy": (429, b""), "/linux-arm64.tar": (200, BODY)}
    ) as files:
        yield files


def request(source: Path, prebuilt: str | None, **fields: Any) -> BuildRequest:
    return BuildRequest(source=source, platform=ARM64, source_date_epoch=1, prebuilt=prebuilt, **fields)


def test_a_path_with_the_platform_in_it_leads_to_an_image(tmp_path: Path) -> None:
    source = image_layout(tmp_path / "layout", ARM64)
    oci_archive(tmp_path / "image-linux-arm64.tar", source)
    asked = request(tmp_path, "image-{platform}.tar")
    builder = PrebuiltBuilder()
    builder.check(asked)
    path = builder.build(asked, tmp_path / "out")
    layout = import_image(path, tmp_path / "imported", platform=ARM64, compress=builder.compresses)
    assert layout.root().digest == source.root().digest


def test_an_absolute_path_is_the_operators_own(tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(BODY)
    asked = request(tmp_path / "source", str(tmp_path / "image.tar"))
    assert PrebuiltBuilder().build(asked, tmp_path / "out") == tmp_path / "image.tar"


def test_a_relative_path_must_stay_in_the_source(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "image.tar").write_bytes(BODY)
    with pytest.raises(OutsideSource):
        PrebuiltBuilder().check(request(tmp_path / "source", "../image.tar"))


def test_a_missing_archive_is_named_with_its_platform(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"'out/linux-arm64\.tar' for linux/arm64"):
        PrebuiltBuilder().check(request(tmp_path, "out/{platform}.tar"))


@pytest.mark.parametrize("prebuilt", [None, ""])
def test_a_request_that_names_nothing_is_refused(tmp_path: Path, prebuilt: str | None) -> None:
    with pytest.raises(InvalidInput, match="`prebuilt`, which is not set"):
        PrebuiltBuilder().check(request(tmp_path, prebuilt))


def test_an_address_is_fetched_and_compared(tmp_path: Path, server: FileServer) -> None:
    asked = request(tmp_path, server.address + "/{os}-{arch}.tar#sha256=" + SHA256)
    assert PrebuiltBuilder().build(asked, tmp_path / "out").read_bytes() == BODY
    assert server.asked == ["/linux-arm64.tar"]


@pytest.mark.parametrize("wanted", [":v1", "@{digest}", ""])
def test_an_image_of_a_registry_is_pulled_for_the_platform(tmp_path: Path, client: RegistryClient, wanted: str) -> None:
    source = image_layout(tmp_path / "source", ARM64)
    for tag in ("v1", "latest"):
        push_graph(source, source.root(), client, "team/app", tag=tag)
    name = f"docker://{client.registry}/team/app{wanted.format(digest=source.root().digest)}"
    builder = PrebuiltBuilder(lambda reference: RegistryClient(reference.registry, settings=AT_ONCE))
    asked = request(tmp_path, name)
    builder.check(asked)
    assert Layout.open(builder.build(asked, tmp_path / "out")).root().digest == source.root().digest


def test_a_reference_that_is_none_is_refused_before_the_build(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="UPPER"):
        PrebuiltBuilder().check(request(tmp_path, "docker://registry.example.com/UPPER"))


def test_another_content_than_promised_is_damage_and_leaves_nothing(tmp_path: Path, server: FileServer) -> None:
    with pytest.raises(DamagedContent, match=SHA256):
        download_archive(f"{server.address}/image.tar#sha256={'0' * 64}", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("path", "temporary"), [("/missing", False), ("/broken", True), ("/busy", True)])
def test_a_refusal_is_named_and_says_whether_to_try_again(
    tmp_path: Path, server: FileServer, path: str, temporary: bool
) -> None:
    with pytest.raises(SourceError) as caught:
        download_archive(server.address + path, tmp_path)
    assert caught.value.temporary is temporary


def test_an_address_that_nobody_serves_is_temporary_and_shows_no_secret(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        download_archive("http://user:hush@127.0.0.1:9/image.tar?token=hush", tmp_path)
    assert caught.value.temporary
    assert "hush" not in str(caught.value)
    assert "http://127.0.0.1:9/image.tar" in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["http://", "https://host:99999/x", "https://host:port/x", "https://host/x#sha256=abc", "https://host/x#md5=abc"],
)
def test_an_address_that_cannot_be_meant_is_refused_beforehand(tmp_path: Path, address: str) -> None:
    with pytest.raises(InvalidInput):
        PrebuiltBuilder().check(request(tmp_path, address))


def test_a_registry_reference_is_checked_beforehand(tmp_path: Path) -> None:
    PrebuiltBuilder().check(request(tmp_path, "docker://registry.example/team/app:1-{arch}"))
    with pytest.raises(InvalidInput):
        PrebuiltBuilder().check(request(tmp_path, "docker://Not A Reference"))


@pytest.mark.parametrize(
    ("prebuilt", "name"),
    [
        (None, None),
        ("images.tar", None),
        ("images.tar#ref=web-1", "web-1"),
        ("/srv/a#b/images.tar#ref=docker.io/library/web:1", "docker.io/library/web:1"),
        ("https://host/images.tar#ref=web-1", "web-1"),
        (f"https://host/images.tar#sha256={SHA256}&ref=web-1", "web-1"),
        (f"https://host/images.tar#sha256={SHA256}", None),
    ],
)
def test_the_name_of_one_of_several_images_comes_after_the_place(prebuilt: str | None, name: str | None) -> None:
    assert image_name(prebuilt) == name


def test_a_place_with_a_name_is_read_without_it(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(BODY)
    local = request(tmp_path, "image.tar#ref=web-1")
    assert PrebuiltBuilder().build(local, tmp_path / "out").read_bytes() == BODY
    fetched = request(tmp_path, f"{server.address}/image.tar#sha256={SHA256}&ref=web-1")
    assert PrebuiltBuilder().build(fetched, tmp_path / "out").read_bytes() == BODY


@pytest.mark.parametrize("fragment", ["ref=", "ref=a&ref=b", "md5=a&ref=b", f"sha256={SHA256}&sha256={SHA256}"])
def test_a_fragment_that_says_something_else_is_refused(fragment: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="the fragment of"):
        PrebuiltBuilder().check(request(tmp_path, f"https://host/image.tar#{fragment}"))
