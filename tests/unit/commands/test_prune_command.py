"""`soci-pipeline prune` from the command line to the registry."""

import json
from pathlib import Path

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest, parse_image_index
from soci_pipeline.oci.media_types import OCI_CONFIG
from soci_pipeline.registry.client import RegistryClient
from tests.support.published import REPOSITORY, tag
from tests.support.registries import AT_ONCE, registry
from tests.support.releases import release, two_releases


@pytest.fixture
def releases(client: RegistryClient, tmp_path: Path) -> dict[str, Descriptor]:
    return two_releases(client, Layout.create(tmp_path / "layout"))


def pruned(client: RegistryClient, *arguments: str) -> list[str]:
    return ["prune", f"{client.registry}/{REPOSITORY}", "--json", *arguments]


def test_a_dry_run_shows_the_plan_and_the_real_one_does_it(
    client: RegistryClient, releases: dict[str, Descriptor], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(pruned(client, "--keep", "v2", "--dry-run")) == 0
    planned = json.loads(capsys.readouterr().out)
    assert set(client.tags.list(REPOSITORY)) == {"v1", "v2"}

    assert main(pruned(client, "--keep", "v2")) == 0
    done = json.loads(capsys.readouterr().out)

    assert (planned["dry_run"], done["dry_run"]) == (True, False)
    assert planned["deleted"] == done["deleted"]
    assert done["deleted"][:2] == ["v1", releases["v1"].digest]
    assert "v2" in done["kept"]
    assert set(done["reasons"]) == {*done["kept"], *done["deleted"]}
    assert client.tags.list(REPOSITORY) == ("v2",)
    assert client.manifests.head(REPOSITORY, releases["v1"].digest) is None


@pytest.mark.parametrize("referrers", [True, False], ids=["referrers API", "fallback tags"])
def test_planned_pruned_and_what_is_left_is_read_to_the_last_byte(
    tmp_path: Path, referrers: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout.create(tmp_path / "layout")
    with registry(tmp_path / "registry", referrers=referrers, settings=AT_ONCE) as client:
        old, new = release(client, layout, "v1"), release(client, layout, "v2")
        before = set(client.tags.list(REPOSITORY))

        assert main(pruned(client, "--keep", "v2", "--dry-run")) == 0
        planned = json.loads(capsys.readouterr().out)
        assert set(client.tags.list(REPOSITORY)) == before
        assert main(pruned(client, "--keep", "v2")) == 0
        done = json.loads(capsys.readouterr().out)

        assert planned["deleted"] == done["deleted"]
        assert {str(each.digest) for each in old.own} <= set(done["deleted"])
        assert {str(each.digest) for each in new.own} <= set(done["kept"])
        assert all(client.manifests.head(REPOSITORY, each.digest) is None for each in old.own)
        assert {name for name in client.tags.list(REPOSITORY) if not name.startswith("sha256-")} == {"v2"}
        reference = f"{client.registry}/{REPOSITORY}:v2"
        assert main(["verify", reference, "--all", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["ok"], report["findings"]) == (True, [])
        assert client.referrers.list(REPOSITORY, new.index.digest)
        assert main(pruned(client, "--keep", "v2")) == 0
        assert json.loads(capsys.readouterr().out)["deleted"] == []


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
    assert client.tags.list(REPOSITORY) == ("v1",)


def test_what_is_in_use_without_a_tag_keeps_the_parts_that_it_shares(
    client: RegistryClient, releases: dict[str, Descriptor], tmp_path: Path
) -> None:
    image = parse_image_index(client.manifests.get(REPOSITORY, "v1")[1]).manifests[0]
    other = ImageIndex(manifests=(image,), annotations={"of": "another release"})
    client.manifests.put(REPOSITORY, other.descriptor.digest, other.encode(), other.media_type)
    in_use = tmp_path / "in-use"
    in_use.write_text(f"{other.descriptor.digest}\n")

    assert main(pruned(client, "--keep-in-use", str(in_use))) == 0

    assert client.tags.list(REPOSITORY) == ()
    assert client.manifests.head(REPOSITORY, releases["v1"].digest) is None
    assert client.manifests.head(REPOSITORY, image.digest) is not None


def test_only_ecr_can_list_what_has_no_tag(client: RegistryClient, releases: dict[str, Descriptor]) -> None:
    assert main(pruned(client, "--keep", "v2", "--untagged-days", "1")) == ExitCode.INVALID_INPUT
    assert set(client.tags.list(REPOSITORY)) == {"v1", "v2"}


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], ExitCode.INVALID_INPUT),
        (["--keep-days", "-1"], ExitCode.USAGE),
        (["--keep-days", "nan"], ExitCode.USAGE),
        (["--keep-latest", "-1"], ExitCode.USAGE),
        (["--keep-latest", "0"], ExitCode.INVALID_INPUT),
        (["--keep-in-use", "/nowhere/at/all"], ExitCode.INVALID_INPUT),
    ],
)
def test_without_a_rule_that_can_be_meant_nothing_is_deleted(
    client: RegistryClient, releases: dict[str, Descriptor], arguments: list[str], status: ExitCode
) -> None:
    assert main(pruned(client, *arguments)) == status
    assert set(client.tags.list(REPOSITORY)) == {"v1", "v2"}


@pytest.mark.parametrize("mode", [[], ["--dry-run"]], ids=["for real", "dry run"])
def test_a_pattern_that_keeps_nothing_deletes_nothing_and_names_the_tags(
    client: RegistryClient, releases: dict[str, Descriptor], mode: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(pruned(client, "--keep", "v3*", *mode)) == ExitCode.INVALID_INPUT
    assert "the existing tags are: v1, v2" in capsys.readouterr().err
    assert set(client.tags.list(REPOSITORY)) == {"v1", "v2"}


def test_tags_that_no_rule_by_age_can_judge_are_counted_at_the_end_with_what_to_do(
    client: RegistryClient, releases: dict[str, Descriptor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout.create(tmp_path / "undated")
    for name in ("u1", "u2"):
        config = layout.add_bytes(json.dumps({"without a time": name}).encode(), OCI_CONFIG)
        tag(client, layout, layout.add_document(ImageManifest(config=config)), name)
    command = ["prune", f"{client.registry}/{REPOSITORY}", "--dry-run", "--keep-latest", "1"]

    assert main(command) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "do not apply: 2 tags, whose images have no creation time" in last
    assert "the tags to keep with --keep" in last

    assert main([*command, "--keep", "u*"]) == 0
    assert "do not apply" not in capsys.readouterr().out


def test_a_tag_in_place_of_a_repository_is_refused() -> None:
    assert main(["prune", "127.0.0.1:1/app:v1", "--keep", "*"]) == ExitCode.INVALID_INPUT
