"""`soci-pipeline index` from the command line to the registry."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.registry.client import RegistryClient
from tests.support.images import AMD64, add_image
from tests.support.indexed import some_layers
from tests.support.published import REPOSITORY, registry, tag


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryClient]:
    monkeypatch.setenv("SOCI_PIPELINE_WORK_FOLDER", str(tmp_path / "work"))
    layout = Layout.create(tmp_path / "layout")
    with registry(tmp_path / "registry") as found:
        image = add_image(layout, AMD64, some_layers())
        tag(found, layout, layout.add_document(ImageIndex(manifests=(image,))), "v1")
        yield found


def answered(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["index", *arguments, "--min-layer-size", "1000", "--span-size", "65536", "--json"]) == 0
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def test_planned_then_done_then_nothing_left_to_do(client: RegistryClient, capsys: pytest.CaptureFixture[str]) -> None:
    reference = f"{client.registry}/{REPOSITORY}:v1"
    size = sum(len(layer.data) for layer in some_layers())

    planned = answered(capsys, reference, "--dry-run")
    done = answered(capsys, reference, "--no-cache")
    again = answered(capsys, reference)

    assert (planned["bytes_to_fetch"], planned["bytes_fetched"], planned["changed"]) == (size, 0, False)
    assert (done["bytes_fetched"], done["changed"], done["tags"]) == (size, True, ["v1"])
    assert (again["bytes_fetched"], again["changed"], again["index"]) == (0, False, done["index"])
    assert main(["verify", reference, "--all"]) == 0
    assert done["platforms"] == again["platforms"]


def test_a_suffix_leaves_the_tag_where_it_is(client: RegistryClient, capsys: pytest.CaptureFixture[str]) -> None:
    before = client.head_manifest(REPOSITORY, "v1")

    answered(capsys, f"{client.registry}/{REPOSITORY}:v1", "--suffix=-soci")

    assert client.head_manifest(REPOSITORY, "v1") == before
    assert set(client.list_tags(REPOSITORY)) == {"v1", "v1-soci"}


def test_the_text_says_what_was_or_would_be_done(client: RegistryClient, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["index", f"{client.registry}/{REPOSITORY}:v1", "--min-layer-size", "1000"]

    assert main([*command, "--dry-run"]) == 0
    assert "would be fetched" in capsys.readouterr().out
    assert main(command) == 0
    assert "indexed as sha256:" in capsys.readouterr().out
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--span-size", "1"], ["--jobs", "0"], ["--min-layer-size", "-1"]])
def test_settings_that_cannot_be_meant_are_refused(client: RegistryClient, arguments: list[str]) -> None:
    reference = f"{client.registry}/{REPOSITORY}:v1"

    assert main(["index", reference, "--min-layer-size", "1000", *arguments]) == ExitCode.INVALID_INPUT
