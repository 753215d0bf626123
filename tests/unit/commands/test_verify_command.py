"""`soci-pipeline verify` from the command line to the registry."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import parse_image_manifest
from soci_pipeline.publish.join import join
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.gzip.checkpoints import Checkpoint
from soci_pipeline.soci.index.records import PlatformImage
from tests.support.images import AMD64, add_image
from tests.support.indexed import Tamper, indexed, some_layers, with_checkpoint, with_entry
from tests.support.published import REPOSITORY, flip, stored, tag, upload
from tests.support.registries import AT_ONCE, registry


@pytest.fixture
def client(tmp_path: Path) -> Iterator[RegistryClient]:
    layout = Layout.create(tmp_path / "layout")
    wrong = with_entry(3, lambda entry: entry._replace(mode=0o777))
    with registry(tmp_path / "registry", settings=AT_ONCE) as found:
        for name, image in (("good", indexed(layout, AMD64)), ("bad", indexed(layout, AMD64, tamper=wrong))):
            _publish(found, layout, image, name)
        yield found


def test_a_sound_image_is_exit_status_0_and_says_what_lazy_loading_saves(
    client: RegistryClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", f"{client.registry}/{REPOSITORY}:good", "--all", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)

    assert answer["ok"] is True
    assert answer["findings"] == []
    assert answer["checked"]["diff_ids"] == 2
    assert answer["lazy_bytes"] < answer["total_bytes"]
    assert answer["platforms"][0]["platform"] == "linux/amd64"

    assert main(["verify", f"{client.registry}/{REPOSITORY}:good", "--platform", "linux/amd64"]) == 0
    said = capsys.readouterr().out
    assert "OK: verified" in said
    assert re.search(r"^checked: .*\b3 manifests, 1 SOCI index, .*, 2 zTOCs, [0-9.]+ KiB of layers$", said, re.M)


def test_an_image_without_an_index_is_sound_and_said_to_have_none(
    client: RegistryClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout.create(tmp_path / "plain")
    tag(client, layout, add_image(layout, AMD64, some_layers()), "plain")
    assert main(["verify", f"{client.registry}/{REPOSITORY}:plain"]) == 0
    said = capsys.readouterr().out
    assert "no layer is indexed" in said
    assert "\nchecked: 1 config, 1 image, 2 layers, 1 manifest\n" in said


@pytest.mark.parametrize("more", [[], ["--all"]])
def test_a_fault_is_named_and_has_its_own_exit_status(
    client: RegistryClient, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    command = ["verify", f"{client.registry}/{REPOSITORY}:bad", *more]

    assert main([*command, "--json"]) == ExitCode.VERIFICATION_FAILED
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert "mode '511', in the layer '420'" in finding["what"]
    assert main([*command, "--platform", "linux/s390x"]) == ExitCode.VERIFICATION_FAILED
    assert "there is no image for linux/s390x" in capsys.readouterr().out


def _one_bit_of_window(point: Checkpoint) -> Checkpoint:
    return point._replace(window=bytes([point.window[0] ^ 1]) + point.window[1:])


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (with_entry(3, lambda entry: entry._replace(size=entry.size ^ 1)), "entry 3, "),
        (with_checkpoint(2, _one_bit_of_window), "checkpoint 2: the window differs from its byte 0 on"),
    ],
    ids=["table of contents", "checkpoint"],
)
def test_one_flipped_bit_in_a_ztoc_under_right_digests_is_found_and_named(
    client: RegistryClient, tmp_path: Path, capsys: pytest.CaptureFixture[str], tamper: Tamper, said: str
) -> None:
    layout = Layout.create(tmp_path / "more")
    image = indexed(layout, AMD64, tamper=tamper)
    _publish(client, layout, image, "flipped")
    assert image.soci_index is not None
    (first, *_) = parse_image_manifest(layout.read(image.manifest)).layers

    assert (
        main(["verify", f"{client.registry}/{REPOSITORY}:flipped", "--all", "--json"]) == ExitCode.VERIFICATION_FAILED
    )
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert any(said in f"{each['where']}: {each['what']}" and first.digest in each["where"] for each in findings)


@pytest.mark.parametrize("part", ["manifest", "layer", "zTOC"])
def test_one_flipped_bit_in_what_the_registry_stores_is_found_and_named(
    client: RegistryClient, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    layout = Layout.create(tmp_path / "more")
    image = indexed(layout, AMD64)
    _publish(client, layout, image, "flipped")
    assert image.soci_index is not None
    damaged = {
        "manifest": image.manifest,
        "layer": parse_image_manifest(layout.read(image.manifest)).layers[0],
        "zTOC": parse_image_manifest(layout.read(image.soci_index)).layers[0],
    }[part]
    flip(stored(tmp_path / "registry").blob_path(damaged.digest), damaged.size // 2)

    assert (
        main(["verify", f"{client.registry}/{REPOSITORY}:flipped", "--all", "--json"]) == ExitCode.VERIFICATION_FAILED
    )
    assert damaged.digest in json.dumps(json.loads(capsys.readouterr().out)["findings"])


def _publish(client: RegistryClient, layout: Layout, image: PlatformImage, name: str) -> None:
    assert image.soci_index is not None
    upload(client, layout, image.manifest, image.soci_index)
    tag(client, layout, layout.add_document(join([image], annotations={}, read=layout.read)), name)


@pytest.mark.parametrize(
    ("target", "status"),
    [("", ExitCode.INVALID_INPUT), (":nothing", ExitCode.REGISTRY_REFUSED), (":a b", ExitCode.INVALID_INPUT)],
)
def test_a_reference_that_names_no_image_is_an_error(client: RegistryClient, target: str, status: ExitCode) -> None:
    assert main(["verify", f"{client.registry}/{REPOSITORY}{target}"]) == status


@pytest.mark.parametrize("command", ["verify", "inspect", "index", "prune", "push layout"])
def test_a_folder_in_place_of_a_reference_is_refused_with_the_way_into_a_registry(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout.create(tmp_path / "layout")
    assert main([*command.split(), str(layout.path)]) == ExitCode.INVALID_INPUT
    said = capsys.readouterr().err
    assert f"'{layout.path}' is on this machine, but an image in a registry is required" in said
    assert "next: `soci-pipeline push LAYOUT REFERENCE`" in said
    assert main([*command.split(), str(tmp_path / "missing")]) == ExitCode.INVALID_INPUT
    assert "not a valid repository name" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["verify", "inspect", "index"])
def test_a_path_that_could_be_a_name_is_told_from_one(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "image.tar").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert main([command, "image.tar"]) == ExitCode.INVALID_INPUT
    assert "`soci-pipeline convert` turns an archive into an OCI layout, and" in capsys.readouterr().err
    assert main([command, "another.tar"]) == ExitCode.INVALID_INPUT
    assert "does not identify an image" in capsys.readouterr().err


def test_an_image_of_which_nothing_can_be_read_is_a_fault_and_nothing_checked(
    client: RegistryClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = client.manifests.head(REPOSITORY, "good")
    assert root is not None
    flip(stored(tmp_path / "registry").blob_path(root.digest), 60)
    assert main(["verify", f"{client.registry}/{REPOSITORY}:good"]) == ExitCode.VERIFICATION_FAILED
    assert "\nchecked: nothing\n" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_repository_without_a_tag_is_an_error_that_lists_its_tags(
    command: str, client: RegistryClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{client.registry}/{REPOSITORY}"
    assert main([command, name]) == ExitCode.INVALID_INPUT
    said = capsys.readouterr().err
    assert f"{name} has no tag or digest" in said
    assert f"next: Add a tag, for example {name}:good. The tags are bad, good." in said

    layout = Layout.create(tmp_path / "many")
    for number in range(12):
        tag(client, layout, add_image(layout, AMD64, some_layers()), f"n{number}")
    assert main([command, name]) == ExitCode.INVALID_INPUT
    assert "and 4 more" in capsys.readouterr().err

    assert main([command, f"{client.registry}/none/such"]) == ExitCode.INVALID_INPUT
    assert "Add a tag or a digest" in capsys.readouterr().err
