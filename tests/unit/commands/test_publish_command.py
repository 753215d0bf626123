"""The command `publish` from this machine, of prebuilt images: sources, tags, results, and what it rejects."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import EngineUnavailable, ExitCode
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.build_cache import CacheMode
from soci_pipeline.publish.dry_run import plan_here
from soci_pipeline.publish.join import join
from soci_pipeline.publish.local_run import prepared
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.publish.steps import push_joined
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.settings import Settings
from soci_pipeline.verification.verify import verify
from tests.support.faults import Fault, FaultPlan, Kind
from tests.support.git_repositories import Repository, repository
from tests.support.images import AMD64, ARM64, gzip_layer, image_layout
from tests.support.programs import write_program
from tests.support.registries import registry
from tests.support.tars import noise

REPOSITORY = "demo/site"


@dataclass
class Publisher:
    """Publishes with the command line; ``images`` are prebuilt layouts of two platforms."""

    client: RegistryClient
    images: Path
    capture: pytest.CaptureFixture[str]
    log: pytest.LogCaptureFixture

    @property
    def image(self) -> str:
        return f"{self.client.registry}/{REPOSITORY}"

    def run(self, source: Path | str, *options: str) -> tuple[int, dict[str, Any], str]:
        """The exit status, the JSON object, and the log."""
        prebuilt = ("--builder", "prebuilt", "--prebuilt", f"{self.images}/{{platform}}")
        status = main(["publish", str(source), self.image, *prebuilt, "--json", *options])
        return status, json.loads(self.capture.readouterr().out), "\n".join(self.log.messages)

    def digest(self, tag: str) -> str | None:
        found = self.client.manifests.head(REPOSITORY, tag)
        return None if found is None else str(found.digest)


@pytest.fixture
def publisher(
    client: RegistryClient,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Publisher:
    images = tmp_path / "images"
    images.mkdir()
    for platform in (AMD64, ARM64):
        image_layout(
            images / platform.slug, platform, [gzip_layer({"opt/model.bin": noise((1 << 20) + len(str(platform)))})]
        )
    monkeypatch.setenv("SOCI_PIPELINE_WORK_FOLDER", str(tmp_path / "work"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "no-prefect"))
    return Publisher(client, images, capsys, caplog)


@pytest.fixture
def source(tmp_path: Path) -> Repository:
    return repository(tmp_path / "source", {"Dockerfile": "FROM scratch\n", "site/Dockerfile": "FROM scratch\n"})


def test_a_clean_folder_is_published_as_its_commit_indexed_verified_and_tagged(
    publisher: Publisher, source: Repository
) -> None:
    commit = source.git("rev-parse", "HEAD")
    status, answer, log = publisher.run(
        source.path, "--soci", "min_layer_size=0", "--tag", "{short_sha}", "--tag", "latest"
    )
    assert status == ExitCode.OK
    assert log.splitlines()[0].startswith("publishing from this machine")
    assert answer["commit"] == commit
    assert answer["tags"] == [commit[:12], "latest"]
    assert answer["verified"]
    assert answer["uncommitted"] is None
    assert [each["platform"] for each in answer["platforms"]] == ["linux/amd64", "linux/arm64"]
    assert all(each["soci_index"] for each in answer["platforms"])
    assert publisher.digest("latest") == publisher.digest(commit[:12]) == answer["index"]
    assert verify(publisher.client, REPOSITORY, "latest").ok


def test_the_same_commit_gives_the_same_index_again(publisher: Publisher, source: Repository) -> None:
    _, first, _ = publisher.run(source.path)
    _, second, _ = publisher.run(source.path / "site", "--context", ".")
    assert first["index"] == second["index"]
    assert second["platforms"][0]["bytes_uploaded"] == 0


def test_uncommitted_changes_are_named_and_never_get_the_tag_of_the_commit(
    publisher: Publisher, source: Repository
) -> None:
    commit = source.git("rev-parse", "HEAD")
    (source.path / "new file.txt").write_text("draft")
    tags = ("--tag", "{short_sha}", "--tag", commit[:10], "--tag", "v-{ref}", "--tag", "dev")
    status, answer, log = publisher.run(source.path, *tags)
    assert status == ExitCode.OK
    assert answer["tags"] == ["dev"]
    assert set(answer["left_out"]) == {"{short_sha}", commit[:10], "v-{ref}"}
    assert "new file.txt" in answer["uncommitted"]
    assert "new file.txt" in log
    assert answer["commit"] is None
    assert publisher.digest(commit[:12]) is None
    manifest = json.loads(publisher.client.manifests.get(REPOSITORY, "dev")[1])
    assert "org.opencontainers.image.revision" not in manifest["annotations"]


def test_without_another_tag_uncommitted_changes_are_rejected_before_anything_is_pushed(
    publisher: Publisher, source: Repository
) -> None:
    (source.path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    status, answer, _ = publisher.run(source.path)
    assert status == ExitCode.INVALID_INPUT
    assert "Dockerfile" in answer["reason"]
    assert "--tag dev" in answer["advice"]
    assert publisher.digest("latest") is None


def test_a_change_outside_of_the_folder_does_not_count(publisher: Publisher, source: Repository) -> None:
    (source.path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    status, answer, _ = publisher.run(source.path / "site")
    assert (status, answer["uncommitted"]) == (ExitCode.OK, None)


def test_a_folder_that_is_in_no_repository_is_published_without_a_commit(publisher: Publisher, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "file").write_text("content")
    os.utime(plain / "file", (1_700_000_000, 1_700_000_000))
    status, answer, _ = publisher.run(plain, "--tag", "dev", "--tag", "{sha}")
    assert status == ExitCode.OK
    assert (answer["commit"], answer["tags"]) == (None, ["dev"])
    assert "not in a git repository" in answer["uncommitted"]
    _, again, _ = publisher.run(plain, "--tag", "dev")
    assert again["index"] == answer["index"]


def test_a_url_is_fetched_and_published_from_here_without_prefect(publisher: Publisher, source: Repository) -> None:
    status, answer, _ = publisher.run(f"file://{source.path}", "--tag", "latest", "--platform", "linux/arm64")
    assert status == ExitCode.OK
    assert [each["platform"] for each in answer["platforms"]] == ["linux/arm64"]


def test_nothing_is_left_in_the_working_folder(publisher: Publisher, source: Repository, tmp_path: Path) -> None:
    publisher.run(source.path)
    assert list((tmp_path / "work" / "runs").iterdir()) == []


def test_what_holds_the_same_images_already_is_not_published_again(publisher: Publisher, source: Repository) -> None:
    _, first, _ = publisher.run(source.path, "--tag", "nightly")
    source.commit({"README": "other"}, at=1_700_000_100)
    status, answer, _ = publisher.run(source.path, "--unless-same-as", "nightly")
    assert status == ExitCode.OK
    assert (answer["same_as"], answer["tags"], answer["index"]) == ("nightly", [], first["index"])


def test_options_override_the_file_of_parameters(publisher: Publisher, source: Repository, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("tags: [from-file]\nplatforms: [linux/amd64]\nsoci:\n  min_layer_size: 0\n  span_size: 65536\n")
    _, answer, _ = publisher.run(
        source.path, "--params", str(file), "--tag", "from-option", "--soci", "span_size=131072"
    )
    assert answer["tags"] == ["from-option"]
    assert [each["platform"] for each in answer["platforms"]] == ["linux/amd64"]
    assert answer["platforms"][0]["soci_index"] is not None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--tag", "feature/x"], "--tag: not a valid tag: 'feature/x'. Use 'feature-x'"),
        (["--tag", "{nope}"], "--tag"),
        (["--platform", "linux/arm65"], "--platform 'linux/arm65': unknown architecture 'arm65'"),
        (["--platform", "linux/amd64", "--platform", "linux/amd64"], "--platform: duplicate: linux/amd64"),
        (["--soci", "span_size=0"], "--soci span_size=0:"),
        (["--soci", "spansize=1"], "--soci spansize=1: no such parameter"),
        (["--worker-wait", "soon"], "--worker-wait 'soon'"),
        (["--worker-wait", "5"], "--worker-wait applies only to a publication through Prefect"),
        (["--build-args", "API_TOKEN=abc"], "--build-args: the build argument API_TOKEN looks like a secret"),
        (["--build-secrets", "npm=hunter2"], "--build-secrets: the build secret npm must name"),
        (["--build-secrets", "npm=secret/npm"], "secret/npm is a Prefect block"),
        (["--build-secrets", "npm=file:/nowhere"], "file:/nowhere: No such file or directory"),
        (["--build-secrets", "npm=file:"], "--build-secrets: the build secret npm must name file:PATH, env:NAME or"),
        (["--source-credentials", "env:NOT_SET_ANYWHERE"], "env:NOT_SET_ANYWHERE: the variable is not set"),
        (["--context", "../up"], "--context '../up': '../up' is not a path inside the source"),
        (["--ref", "--upload-pack=x"], "--ref"),
        (["--params", "/nowhere.yaml"], "--params /nowhere.yaml: No such file or directory"),
    ],
)
def test_a_mistake_is_answered_at_once_by_option_value_and_what_is_allowed(
    options: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    status = main(["publish", str(tmp_path), "127.0.0.1:9/demo/site", "--json", *options])
    shown = capsys.readouterr()
    assert status == ExitCode.INVALID_INPUT
    answer = json.loads(shown.out)
    assert reason in answer["reason"]
    assert answer["advice"]
    assert "hunter2" not in shown.out + shown.err
    assert "=abc" not in shown.out + shown.err
    assert time.monotonic() - begun < 5


def test_files_and_variables_of_this_machine_are_no_secrets_of_a_publication_through_prefect(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    source = "https://git.example.com/shop/web.git"
    status = main(["publish", source, "127.0.0.1:9/demo/site", "--json", "--source-credentials", "env:GIT_TOKEN"])
    answer = json.loads(capsys.readouterr().out)
    assert status == ExitCode.INVALID_INPUT
    assert "source_credentials must name a Prefect block" in answer["reason"]
    assert "--local" in answer["advice"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("tagz: [a]\n", "there is no parameter 'tagz'"),
        ("- a\n", "must contain parameters by name"),
        ("a: [\n", "is not valid JSON or YAML (line 2)"),
        ('{"tags": ["a/b"]}', "params.yaml: tags"),
        ("tags: [a]\ntags: [b]\n", "(line 2): duplicate key 'tags'"),
        ('{"build_args": {"A": "hunter2", "A": "b"}}', "duplicate key 'A'"),
        ("tags: &all [a]\nplatforms: *all\n", "(line 2): the alias *all is not supported"),
        ("build_args: {DAY: 2026-01-02}", "(line 1): DAY: 2026-01-02 is a date or time, which JSON does not support"),
        ("build_args: {KEY: !!binary aHVudGVyMg==}", "(line 1): KEY: the value is binary data (!!binary)"),
        ("build_args: !!set {A}", "(line 1): build_args: the value is a set (!!set)"),
        ("tags: 2026-13-45\n", "is not valid JSON or YAML"),
        ("tags: " + "[" * 20_000, "is not valid JSON or YAML"),
        ("worker_wait: " + "9" * 5000, "is not valid JSON or YAML"),
        ("tags: !!int hunter2\n", "is not valid JSON or YAML"),
        ('{\n\t"worker_wait": "\\ud83d\\ude00"}', "worker_wait"),
        ("#" * ((1 << 20) + 1), "is larger than 1 MiB"),
    ],
)
def test_a_mistake_in_the_file_of_parameters_names_the_file(
    content: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(content)
    status = main(["publish", str(tmp_path), "127.0.0.1:9/demo/site", "--json", "--params", str(file)])
    assert status == ExitCode.INVALID_INPUT
    shown = capsys.readouterr()
    assert reason in json.loads(shown.out)["reason"]
    assert "hunter2" not in shown.out + shown.err


@pytest.mark.parametrize(
    ("source", "image", "reason"),
    [
        ("no-such-folder", "127.0.0.1:9/demo", "SOURCE 'no-such-folder' does not exist"),
        ("~no-such-user/app", "127.0.0.1:9/demo", "SOURCE '~no-such-user/app' does not exist"),
        ("a" * 5000, "127.0.0.1:9/demo", "aaa' does not exist"),
        ("javascript:alert(1)", "127.0.0.1:9/demo", "SOURCE: not a valid git URL"),
        (".", "127.0.0.1:9/demo:latest", "has the tag latest"),
        (".", "127.0.0.1:9/UPPER", "IMAGE '127.0.0.1:9/UPPER'"),
    ],
)
def test_a_source_or_an_image_that_is_not_valid_is_named(
    source: str, image: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", source, image, "--json"]) == ExitCode.INVALID_INPUT
    assert reason in json.loads(capsys.readouterr().out)["reason"]


def test_a_version_needs_a_git_tag_on_the_commit(publisher: Publisher, source: Repository) -> None:
    status, answer, _ = publisher.run(source.path, "--tag", "{version}")
    assert status == ExitCode.INVALID_INPUT
    assert "{version} requires a git tag on the commit" in answer["reason"]
    source.git("tag", "v1.2.0")
    _, answer, _ = publisher.run(source.path, "--tag", "{version}")
    assert answer["tags"] == ["1.2.0"]


def test_a_tag_that_holds_a_newer_commit_is_a_conflict_before_the_build(
    publisher: Publisher, source: Repository
) -> None:
    older = source.git("rev-parse", "HEAD")
    source.commit({"a": "b"}, at=1_700_000_100)
    publisher.run(source.path, "--tag", "latest")
    status, answer, _ = publisher.run(source.path, "--tag", "latest", "--ref", older)
    assert status == ExitCode.TAG_CONFLICT
    assert "newer" in answer["reason"]
    assert publisher.run(source.path, "--tag", "latest", "--ref", older, "--force-tags")[0] == ExitCode.OK


def test_the_table_has_digests_tags_verification_sizes_and_times(
    publisher: Publisher, source: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    prebuilt = ("--builder", "prebuilt", "--prebuilt", f"{publisher.images}/{{platform}}")
    assert main(["publish", str(source.path), publisher.image, *prebuilt, "--tag", "v1"]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert f"{publisher.image}:v1 is published." in shown
    for expected in (
        "image index",
        "linux/arm64",
        "tags:",
        "verified:",
        "uploaded:",
        "duration:",
        "not indexed: too-small",
        "because all are smaller than the minimum size (10 MiB by default).",
        "publish with `--soci min_layer_size=0`",
    ):
        assert expected in shown


def test_the_log_counts_one_platform_as_one_and_names_why_layers_are_not_indexed(
    publisher: Publisher, source: Repository
) -> None:
    _, _, log = publisher.run(source.path, "--tag", "v1", "--platform", "linux/amd64")
    assert "joined 1 platform as" in log
    assert "0 of 1 layer indexed (v2); not indexed: 1 too-small" in log


def test_the_table_of_an_image_with_an_indexed_layer_does_not_advise_a_smaller_minimum(
    publisher: Publisher, source: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    prebuilt = ("--builder", "prebuilt", "--prebuilt", f"{publisher.images}/{{platform}}")
    assert main(["publish", str(source.path), publisher.image, *prebuilt, "--soci", "min_layer_size=0"]) == ExitCode.OK
    assert "min_layer_size" not in capsys.readouterr().out


_FAILING_BUILDX = """
case "$2" in
version) echo "github.com/docker/buildx v0.13.1" ;;
inspect) echo "Platforms: linux/amd64" ;;
build)
  cat >&2 <<'END'
#7 [2/2] RUN make
#7 0.512 cc: no such file
#7 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 1
------
 > [2/2] RUN make:
0.512 cc: no such file
------
Dockerfile:2
--------------------
   2 | >>> RUN make
--------------------
ERROR: failed to build: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 1
END
  exit 1 ;;
esac
"""


@pytest.mark.parametrize("loudness", [[], ["--quiet"]])
def test_the_log_of_a_build_that_fails_is_on_the_terminal_once(
    loudness: list[str], client: RegistryClient, source: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(tmp_path / "bin", "docker", _FAILING_BUILDX)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SOCI_PIPELINE_WORK_FOLDER", str(tmp_path / "work"))
    monkeypatch.setenv("SOCI_PIPELINE_BUILD_BUILDX_BUILDER", "farm")
    command = [sys.executable, "-m", "soci_pipeline", "publish", str(source.path), f"{client.registry}/demo"]
    options = ("--platform", "linux/amd64", "--builder", "buildx", *loudness)
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == ExitCode.BUILD_FAILED
    for line in ("cc: no such file", "#7 ERROR: process", "Dockerfile:2", "ERROR: failed to build"):
        assert done.stderr.count(line) == 1, done.stderr
    assert done.stderr.count("  [2/2] RUN make\n") == (0 if loudness else 1)


def test_a_dry_run_says_what_would_move_and_changes_nothing(publisher: Publisher, source: Repository) -> None:
    _, published, _ = publisher.run(source.path, "--tag", "latest")
    commit = source.commit({"a": "b"}, at=1_700_000_100)
    status, answer, _ = publisher.run(source.path, "--dry-run", "--tag", "latest", "--tag", "{short_sha}")
    assert status == ExitCode.OK
    assert answer["commit"] == commit
    assert answer["tags"] == {"latest": published["index"], commit[:12]: None}
    assert set(answer["builders"]) == {"linux/amd64", "linux/arm64"}
    assert answer["existing"] == 1
    assert publisher.client.tags.list(REPOSITORY) == ("latest",)
    assert publisher.digest("latest") == published["index"]


def test_a_dry_run_reports_a_conflict_of_tags_and_a_missing_file(publisher: Publisher, source: Repository) -> None:
    older = source.git("rev-parse", "HEAD")
    source.commit({"a": "b"}, at=1_700_000_100)
    publisher.run(source.path, "--tag", "latest")
    assert publisher.run(source.path, "--dry-run", "--tag", "latest", "--ref", older)[0] == ExitCode.TAG_CONFLICT


@pytest.mark.parametrize("mode", [[], ["--dry-run"]])
def test_a_registry_that_does_not_answer_is_reported_quickly_and_before_the_build(
    mode: list[str], publisher: Publisher, source: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    prebuilt = ("--builder", "prebuilt", "--prebuilt", f"{publisher.images}/{{platform}}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    begun = time.monotonic()
    status = main(["publish", str(source.path), f"127.0.0.1:{port}/demo", *prebuilt, "--json", *mode])
    assert time.monotonic() - begun < 5
    assert status == ExitCode.REGISTRY_UNREACHABLE
    answer = json.loads(capsys.readouterr().out)
    assert f"no registry answers at 127.0.0.1:{port}" in answer["reason"]
    assert f"Start a registry on 127.0.0.1:{port}" in answer["advice"]
    assert "building" not in publisher.log.text


def test_a_push_is_retried_where_the_registry_fails_for_a_while_after_the_check(
    publisher: Publisher, source: Repository, tmp_path: Path
) -> None:
    # The second session is the first layer's: the check of the target opens the first one.
    fault = Fault("POST", "/blobs/uploads/", nth=2, times=2, kind=Kind.RESET)
    with registry(tmp_path / "failing", faults=[fault]) as client:
        there = replace(publisher, client=client)
        status, answer, log = there.run(source.path, "--tag", "v1", "--platform", "linux/amd64")
    assert (status, answer["tags"]) == (ExitCode.OK, ["v1"])
    assert "trying again" in log


def test_output_leaves_the_joined_image_as_a_layout_and_contacts_no_registry(
    publisher: Publisher, source: Repository, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    status, answer, _ = publisher.run(source.path, "--output", str(output), "--soci", "min_layer_size=0", "--tag", "v1")
    assert status == ExitCode.OK
    assert (answer["layout"], answer["tags"]) == (str(output), [])
    layout = Layout.open(output)
    assert str(layout.root().digest) == answer["index"]
    assert layout.root().annotations["org.opencontainers.image.ref.name"] == "v1"
    assert list((tmp_path / "registry").rglob("sha256*")) == []
    _, published, _ = publisher.run(source.path, "--soci", "min_layer_size=0", "--tag", "v1")
    assert published["index"] == answer["index"]


def test_output_of_a_v1_index_can_be_pushed_and_verified(
    publisher: Publisher, source: Repository, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    publisher.run(source.path, "--output", str(output), "--soci", "min_layer_size=0", "--soci", "version=v1")
    assert main(["push", str(output), f"{publisher.image}:v1", "--json"]) == ExitCode.OK
    assert main(["verify", "--all", f"{publisher.image}:v1", "--json"]) == ExitCode.OK


def test_output_needs_no_tag_of_an_uncommitted_folder(publisher: Publisher, source: Repository, tmp_path: Path) -> None:
    (source.path / "draft").write_text("x")
    status, answer, _ = publisher.run(source.path, "--output", str(tmp_path / "output"))
    assert status == ExitCode.OK
    assert "draft" in answer["uncommitted"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--local", "--remote"], "--local and --remote exclude each other"),
        (["--remote"], "--remote requires a Prefect server"),
        (["--detach"], "--detach has no effect from this machine"),
        (["--output", "."], "--output . exists and is not empty"),
        (["--output", ".."], "--output .. exists and is not empty"),
        (["--output", "../loop/new"], "--output ../loop/new: ../loop does not exist"),
        (["--output", "site/new"], "--output site/new is inside SOURCE"),
        (["--output", "../link/new"], "--output ../link/new is inside SOURCE"),
        (["--output", "../none/new"], "--output ../none/new: ../none does not exist"),
        (["--output", "new", "--dry-run"], "--output and --dry-run exclude each other"),
    ],
)
def test_options_that_would_do_nothing_or_contradict_each_other_are_rejected(
    options: list[str], reason: str, publisher: Publisher, source: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.path)
    (source.path.parent / "link").symlink_to(source.path)
    (source.path.parent / "loop").symlink_to("loop")
    status, answer, log = publisher.run(".", *options)
    assert status == ExitCode.INVALID_INPUT
    assert reason in answer["reason"]
    assert "building" not in log
    assert source.git("status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("source", "options", "prefect", "first"),
    [
        (".", [], "", "publishing from this machine: SOURCE is a folder"),
        (".", [], "http://127.0.0.1:9/api", "publishing from this machine: SOURCE is a folder"),
        ("file:///x", [], "", "publishing from this machine: SOURCE is a URL, and no Prefect server is configured"),
        ("file:///x", ["--local"], "http://127.0.0.1:9/api", "publishing from this machine: --local was given"),
    ],
)
def test_the_first_line_says_where_it_runs_and_why(
    source: str,
    options: list[str],
    prefect: str,
    first: str,
    publisher: Publisher,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", prefect)
    _, _, log = publisher.run(source, *options)
    assert log.startswith(first)


def test_a_url_goes_through_prefect_where_one_is_configured_and_its_absence_is_named(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    status, answer, _ = publisher.run("https://git.example.com/shop/web.git")
    assert status == ExitCode.STACK
    assert "no Prefect server answers at http://127.0.0.1:9/api" in answer["reason"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--dockerfile", "Nope"], "--dockerfile 'Nope': "),
        (["--context", "nowhere"], "--context 'nowhere': "),
        (["--tag", "{version}"], "--tag '{version}': {version} requires a git tag on the commit"),
    ],
)
def test_what_the_folder_lacks_is_answered_before_an_engine_or_a_registry_is_asked(
    options: list[str], reason: str, source: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(source.path), "127.0.0.1:9/demo", "--json", *options]) == ExitCode.INVALID_INPUT
    assert reason in json.loads(capsys.readouterr().out)["reason"]


@pytest.mark.parametrize("chosen", [False, True])
def test_a_default_platform_that_the_builder_lacks_is_left_out_and_one_that_was_chosen_is_kept(
    chosen: bool, client: RegistryClient, source: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(tmp_path / "bin", "docker", "echo 'Platforms: linux/amd64*, linux/amd64/v2'")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SOCI_PIPELINE_WORK_FOLDER", str(tmp_path / "work"))
    settings = Settings.from_environment(dict(os.environ) | {"SOCI_PIPELINE_BUILD_BUILDX_BUILDER": "farm"})
    request = PublishRequest.check(
        {"image": f"{client.registry}/demo", "source": str(source.path), "builder": "buildx"}
    )
    plan = plan_here(request, settings, all_platforms=chosen)
    assert set(plan.builders) == ({"linux/amd64", "linux/arm64"} if chosen else {"linux/amd64"})
    assert dict(plan.not_built) == ({} if chosen else {"linux/arm64": "the builder farm builds linux/amd64 only"})


@pytest.mark.parametrize("chosen", [False, True])
def test_a_platform_without_an_emulator_takes_one_short_line_with_the_next_step_and_none_with_quiet(
    chosen: bool,
    client: RegistryClient,
    source: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_program(tmp_path / "bin", "docker", "echo 'Platforms: linux/amd64'")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SOCI_PIPELINE_WORK_FOLDER", str(tmp_path / "work"))
    monkeypatch.setenv("SOCI_PIPELINE_BUILD_BUILDX_BUILDER", "farm")
    platforms = ("--platform", "linux/amd64", "--platform", "linux/arm64") if chosen else ()
    command = [sys.executable, "-m", "soci_pipeline", "publish", str(source.path), f"{client.registry}/demo"]
    shown: dict[str, list[str]] = {}
    for loudness in ("--quiet", "--verbose"):
        done = subprocess.run(
            [*command, "--dry-run", loudness, *platforms], capture_output=True, text=True, timeout=60, check=True
        )
        shown[loudness] = [line for line in done.stderr.splitlines() if "linux/arm64" in line]
    assert shown["--quiet"] == []
    (line,) = shown["--verbose"]
    assert line.startswith(
        "RUN steps for linux/arm64 require an emulator" if chosen else "linux/arm64 is not built, because"
    )
    assert "install qemu-user-static, or set SOCI_PIPELINE_BUILD_BUILDX_BUILDER" in line
    assert len(line) < 180


def test_the_answer_to_an_unknown_platform_lists_what_this_machine_can_build(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["publish", str(tmp_path), "127.0.0.1:9/demo/site", "--json"]
    assert main([*command, "--platform", "linux/arm65"]) == ExitCode.INVALID_INPUT
    advice = json.loads(capsys.readouterr().out)["advice"]
    assert advice.startswith("This machine can build ")
    assert str(Platform.native()) in advice


def test_a_platform_that_the_builder_cannot_build_is_answered_with_those_that_it_can(
    client: RegistryClient, source: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(tmp_path / "bin", "docker", "echo 'Platforms: linux/amd64'")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SOCI_PIPELINE_WORK_FOLDER", str(tmp_path / "work"))
    settings = Settings.from_environment(dict(os.environ) | {"SOCI_PIPELINE_BUILD_BUILDX_BUILDER": "farm"})
    request = PublishRequest.check(
        {"image": f"{client.registry}/demo", "source": str(source.path), "platforms": ["linux/s390x"]}
    )
    with pytest.raises(EngineUnavailable, match="linux/s390x: the builder farm builds linux/amd64 only") as caught:
        plan_here(request, settings, all_platforms=False)
    assert str(caught.value.advice).startswith("Choose one of linux/amd64; or install qemu-user-static")


def test_parameters_may_come_from_a_pipe_which_can_be_read_once(
    publisher: Publisher, source: Repository, tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"platforms: [linux/amd64]\n")
    os.close(writer)
    try:
        status, answer, _ = publisher.run(source.path, "--dry-run", "--params", f"/dev/fd/{reader}")
    finally:
        os.close(reader)
    assert status == ExitCode.OK
    assert set(answer["builders"]) == {"linux/amd64"}


@pytest.mark.parametrize("name", ["app ", "a\nb", "a\udcff"])
def test_a_folder_whose_name_would_become_another_one_is_rejected(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for each in (name, "app", "a"):
        (tmp_path / each).mkdir()
    assert main(["publish", str(tmp_path / name), "127.0.0.1:9/demo", "--json"]) == ExitCode.INVALID_INPUT
    assert "control characters" in json.loads(capsys.readouterr().out)["reason"]


def test_an_output_that_somebody_else_has_filled_meanwhile_is_kept(
    publisher: Publisher, source: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "output"

    def joined_late(*arguments: Any, **named: Any) -> Any:
        (output / "blobs").mkdir(parents=True)
        (output / "blobs" / "theirs").write_text("x")
        return join(*arguments, **named)

    monkeypatch.setattr("soci_pipeline.publish.local_layout.join", joined_late)
    status, answer, _ = publisher.run(source.path, "--output", str(output))
    assert status == ExitCode.INVALID_INPUT
    assert "exists and is not empty" in answer["reason"]
    assert (output / "blobs" / "theirs").read_text() == "x"


def test_an_output_that_is_a_link_to_nowhere_is_rejected(
    publisher: Publisher, source: Repository, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    status, answer, _ = publisher.run(source.path, "--output", str(tmp_path / "link"))
    assert (status, (tmp_path / "nowhere").exists()) == (ExitCode.INVALID_INPUT, False)
    assert "--output" in answer["reason"]


def test_a_tag_that_somebody_moves_meanwhile_to_a_newer_commit_is_a_conflict_and_stays(
    publisher: Publisher, source: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = source.git("rev-parse", "HEAD")
    source.commit({"a": "b"}, at=1_700_000_100)
    theirs: list[dict[str, Any]] = []

    def joined_late(*arguments: Any, **named: Any) -> Any:
        if not theirs:
            theirs.append({})
            theirs.append(publisher.run(source.path, "--tag", "latest")[1])
        return push_joined(*arguments, **named)

    monkeypatch.setattr("soci_pipeline.publish.local_run.push_joined", joined_late)
    status, answer, _ = publisher.run(source.path, "--tag", "latest", "--ref", older)
    assert status == ExitCode.TAG_CONFLICT
    assert "latest" in answer["reason"]
    assert "newer" in answer["reason"]
    assert publisher.digest("latest") == theirs[1]["index"]


def _killed(command: list[str], when: Callable[[], bool]) -> None:
    """Start a command, and kill it with SIGKILL once ``when`` holds."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(600):
            if when() or process.poll() is not None:
                break
            time.sleep(0.05)
        assert process.poll() is None, "the publication ended before it could be killed"
        process.kill()


def test_a_publication_that_is_killed_while_it_builds_leaves_nothing_that_the_next_one_does_not_remove(
    publisher: Publisher, source: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, runs = tmp_path / "started", tmp_path / "work" / "runs"
    building = f"echo $$ > {started}.new; mv {started}.new {started}; exec sleep 300"
    choose = f'case "$2" in version) echo v0.13.1 ;; inspect) echo "Platforms: linux/amd64" ;; *) {building} ;; esac'
    write_program(tmp_path / "bin", "docker", choose)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with monkeypatch.context() as environment:
        environment.setenv("SOCI_PIPELINE_BUILD_BUILDX_BUILDER", "farm")
        command = [sys.executable, "-m", "soci_pipeline", "publish", str(source.path), publisher.image]
        _killed([*command, "--tag", "v1", "--platform", "linux/amd64"], started.exists)
    assert publisher.digest("v1") is None
    assert len(list(runs.iterdir())) == 1
    assert publisher.run(source.path, "--tag", "v1")[0] == ExitCode.OK
    assert list(runs.iterdir()) == []
    # A process that has ended and was not waited for yet has no command line any more.
    command_line = Path("/proc", started.read_text().strip(), "cmdline")
    assert not command_line.exists() or b"sleep" not in command_line.read_bytes()


def test_a_publication_that_is_killed_while_it_pushes_has_moved_no_tag_and_can_be_repeated(
    publisher: Publisher, source: Repository, tmp_path: Path
) -> None:
    runs = tmp_path / "work" / "runs"
    plan = FaultPlan([Fault("PUT", "/manifests/", kind=Kind.DELAY, seconds=2.0)])
    with registry(tmp_path / "slow", faults=plan) as client:
        there = replace(publisher, client=client)
        prebuilt = ("--builder", "prebuilt", "--prebuilt", f"{publisher.images}/{{platform}}")
        command = [sys.executable, "-m", "soci_pipeline", "publish", str(source.path), there.image, *prebuilt]
        _killed([*command, "--tag", "v1"], lambda: bool(plan.struck))
        assert there.digest("v1") is None
        assert there.run(source.path, "--tag", "v1")[0] == ExitCode.OK
        assert verify(client, REPOSITORY, "v1").ok
    assert list(runs.iterdir()) == []


def test_files_that_are_in_no_commit_have_no_build_cache(
    client: RegistryClient,
    source: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_program(tmp_path / "bin", "docker", "echo 'Platforms: linux/amd64, linux/arm64'")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SOCI_PIPELINE_WORK_FOLDER", str(tmp_path / "work"))
    settings = Settings.from_environment(dict(os.environ) | {"SOCI_PIPELINE_BUILD_BUILDX_BUILDER": "farm"})
    asked = {"image": f"{client.registry}/demo", "source": str(source.path), "builder": "buildx", "cache": "registry"}
    request = PublishRequest.check(asked | {"tags": ["dev"]})
    with prepared(request, settings, all_platforms=False) as (ready, _):
        assert ready.request.cache is CacheMode.REGISTRY
    (source.path / "new.txt").write_text("x")
    with prepared(request, settings, all_platforms=False) as (ready, _):
        assert ready.request.cache is CacheMode.OFF
    assert "have no build cache" in caplog.text
