"""`soci-pipeline index` from the command line to the registry."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from soci_pipeline.machine.programs import run
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.registry.client import RegistryClient
from tests.support.images import AMD64, add_image, gzip_layer
from tests.support.indexed import some_layers
from tests.support.published import REPOSITORY, tag
from tests.support.registries import AT_ONCE, registry
from tests.support.tars import noise


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryClient]:
    monkeypatch.setenv("SOCI_PIPELINE_WORK_FOLDER", str(tmp_path / "work"))
    layout = Layout.create(tmp_path / "layout")
    with registry(tmp_path / "registry", settings=AT_ONCE) as found:
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
    before = client.manifests.head(REPOSITORY, "v1")

    answered(capsys, f"{client.registry}/{REPOSITORY}:v1", "--suffix=-soci")

    assert client.manifests.head(REPOSITORY, "v1") == before
    assert set(client.tags.list(REPOSITORY)) == {"v1", "v1-soci"}


def test_a_tag_to_reuse_from_that_is_not_there_is_told_and_no_failure(
    client: RegistryClient, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    reference = f"{client.registry}/{REPOSITORY}:v1"

    assert answered(capsys, reference, "--reuse-from", "v0")["changed"]

    [said] = [record.getMessage() for record in caplog.records if "reused" in record.getMessage()]
    assert said.startswith(f"nothing is reused from the tag v0 of {REPOSITORY}: ")


def test_a_dry_run_counts_no_layer_whose_ztoc_is_in_the_cache(
    client: RegistryClient, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = f"{client.registry}/{REPOSITORY}:v1"
    answered(capsys, reference, "--suffix=-first")
    with_cache = answered(capsys, reference, "--suffix=-second", "--dry-run")
    without = answered(capsys, reference, "--suffix=-second", "--dry-run", "--no-cache")
    assert main(["index", reference, "--min-layer-size", "1000", "--span-size", "65536", "--dry-run"]) == 0
    assert "no layer would be fetched, because their zTOCs are known" in capsys.readouterr().out
    again = answered(capsys, reference, "--suffix=-second")

    assert (with_cache["bytes_to_fetch"], again["bytes_fetched"]) == (0, 0)
    assert without["bytes_to_fetch"] == sum(len(layer.data) for layer in some_layers())


def test_the_text_says_what_was_or_would_be_done(client: RegistryClient, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["index", f"{client.registry}/{REPOSITORY}:v1", "--min-layer-size", "1000"]

    assert main([*command, "--dry-run"]) == 0
    assert "would be fetched" in capsys.readouterr().out
    assert main([*command, "--dry-run", "--min-layer-size", "1000000000"]) == 0
    said = capsys.readouterr().out
    assert "no layer would get a zTOC" in said
    assert "B): not indexed: too-small" in said
    assert main(command) == 0
    assert "indexed as sha256:" in capsys.readouterr().out
    assert main(command) == 0
    again = capsys.readouterr()
    assert "nothing to do" in again.out
    assert again.err == ""
    assert main([*command, "--dry-run"]) == 0
    assert "is already indexed with these settings; nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--span-size", "0"], ["--jobs", "0"], ["--min-layer-size", "-1"]])
def test_settings_that_cannot_be_meant_are_refused(client: RegistryClient, arguments: list[str]) -> None:
    reference = f"{client.registry}/{REPOSITORY}:v1"

    assert main(["index", reference, "--min-layer-size", "1000", *arguments]) == ExitCode.USAGE


def test_an_image_that_is_larger_than_the_disk_is_indexed(tmp_path: Path) -> None:
    """No file may grow beyond a twentieth of the layer: neither the layer nor much of it can have been on the disk."""
    layout = Layout.create(tmp_path / "large")
    layer = gzip_layer({f"data/{number}": noise(1 << 20, seed=number) for number in range(20)}, level=1)
    assert len(layer.data) > 20 << 20
    with registry(tmp_path / "other", settings=AT_ONCE) as client:
        tag(client, layout, layout.add_document(ImageIndex(manifests=(add_image(layout, AMD64, [layer]),))), "v1")
        reference = f"{client.registry}/{REPOSITORY}:v1"
        command = [sys.executable, "-m", "soci_pipeline", "index", reference, "--no-cache", "--jobs", "1", "--json"]
        # In blocks of 512 bytes: one MiB.
        limited = ["sh", "-c", 'ulimit -f 2048; exec "$@"', "sh", *command]
        (tmp_path / "tmp").mkdir()
        env = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "SOCI_PIPELINE_WORK_FOLDER": str(tmp_path / "work")}
        answer = json.loads(run(limited, env=env).stdout)
        assert (answer["changed"], answer["bytes_fetched"]) == (True, len(layer.data))
        assert main(["verify", reference]) == 0
    assert list((tmp_path / "tmp").iterdir()) == []
