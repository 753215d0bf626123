"""`soci-pipeline prune` from the command line to the registry."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, parse_image_index
from soci_pipeline.publish.join import join
from soci_pipeline.registry.client import RegistryClient
from tests.support.branches import branch_v2
from tests.support.images import AMD64, gzip_layer
from tests.support.published import REPOSITORY, registry, tag, upload


@pytest.fixture
def client(tmp_path: Path) -> Iterator[RegistryClient]:
    with registry(tmp_path / "registry") as found:
        yield found


@pytest.fixture
def releases(client: RegistryClient, tmp_path: Path) -> dict[str, Descriptor]:
    layout = Layout.create(tmp_path / "layout")
    made = {}
    for name in ("v1", "v2"):
        image = branch_v2(layout, AMD64, layers=[gzip_layer({"release": name.encode()})])
        assert image.soci_index is not None
        upload(client, layout, image.manifest, image.soci_index)
        made[name] = layout.add_document(join([image], annotations={}, read=layout.read))
        tag(client, layout, made[name], name)
    return made


def pruned(client: RegistryClient, *arguments: str) -> list[str]:
    return ["prune", f"{client.registry}/{REPOSITORY}", "--json", *arguments]


def test_a_dry_run_shows_the_plan_and_the_real_one_does_it(
    client: RegistryClient, releases: dict[str, Descriptor], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(pruned(client, "--keep", "v2", "--dry-run")) == 0
    planned = json.loads(capsys.readouterr().out)
    assert set(client.list_tags(REPOSITORY)) == {"v1", "v2"}

    assert main(pruned(client, "--keep", "v2")) == 0
    done = json.loads(capsys.readouterr().out)

    assert (planned["dry_run"], done["dry_run"]) == (True, False)
    assert planned["deleted"] == done["deleted"]
    assert done["deleted"][:2] == ["v1", releases["v1"].digest]
    assert "v2" in done["kept"]
    assert set(done["reasons"]) == {*done["kept"], *done["deleted"]}
    assert client.list_tags(REPOSITORY) == ("v2",)
    assert client.head_manifest(REPOSITORY, releases["v1"].digest) is None


def test_digests_in_use_come_from_a_file(
    client: RegistryClient,
    releases: dict[str, Descriptor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    in_use = tmp_path / "in-use"
    in_use.write_text(f"# from the services\n\n{client.registry}/{REPOSITORY}@{releases['v1'].digest}\n")

    assert main(["prune", f"{client.registry}/{REPOSITORY}", "--keep-in-use", str(in_use)]) == 0

    assert "kept      v1  (its digest is in use)" in capsys.readouterr().out
    assert client.list_tags(REPOSITORY) == ("v1",)


def test_what_is_in_use_without_a_tag_keeps_the_parts_that_it_shares(
    client: RegistryClient, releases: dict[str, Descriptor], tmp_path: Path
) -> None:
    image = parse_image_index(client.get_manifest(REPOSITORY, "v1")[1]).manifests[0]
    other = ImageIndex(manifests=(image,), annotations={"of": "another release"})
    client.put_manifest(REPOSITORY, other.descriptor.digest, other.encode(), other.media_type)
    in_use = tmp_path / "in-use"
    in_use.write_text(f"{other.descriptor.digest}\n")

    assert main(pruned(client, "--keep-in-use", str(in_use))) == 0

    assert client.list_tags(REPOSITORY) == ()
    assert client.head_manifest(REPOSITORY, releases["v1"].digest) is None
    assert client.head_manifest(REPOSITORY, image.digest) is not None


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--keep-latest", "-1"],
        ["--keep-in-use", "/nowhere/at/all"],
    ],
)
def test_without_a_rule_that_can_be_meant_nothing_is_deleted(
    client: RegistryClient, releases: dict[str, Descriptor], arguments: list[str]
) -> None:
    assert main(pruned(client, *arguments)) == ExitCode.INVALID_INPUT
    assert set(client.list_tags(REPOSITORY)) == {"v1", "v2"}


def test_a_tag_in_place_of_a_repository_is_refused() -> None:
    assert main(["prune", "127.0.0.1:1/app:v1", "--keep", "*"]) == ExitCode.INVALID_INPUT
