"""The actions for GitHub and the template for GitLab: their shell steps, run against a registry that wants a login."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from soci_pipeline.cli import main
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.oci.platform import Platform
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import RepositoryUnknown
from soci_pipeline.registry.server import ServerSettings
from tests.support.archives import oci_archive
from tests.support.ci_steps import Runner, load, run_gitlab_job
from tests.support.documentation import REPOSITORY, blocks
from tests.support.fake_programs import Programs
from tests.support.images import AMD64, ARM64, add_attestation, add_image, large_layer
from tests.support.registries import CREDENTIALS, LOGIN, registry

PUSH, JOIN, START = "ci/github/push", "ci/github/join", "ci/github/start"
GITLAB = "ci/gitlab/soci.gitlab-ci.yml"
PAGE = "docs/ci.md"
REPOSITORY_NAME = "team/web"
PASSWORD = LOGIN.password.get_secret_value()
LOGIN_INPUTS = {"username": LOGIN.username, "password": PASSWORD}
HOSTILE = "$(touch hacked);`touch hacked`;'\"; touch hacked #"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[RegistryClient]:
    with registry(tmp_path / "registry", server=ServerSettings(login=LOGIN), credentials=CREDENTIALS) as made:
        yield made


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """A python3 whose venv has the command of this checkout and whose pip only notes what it is to install."""
    folder = tmp_path / "programs"
    folder.mkdir()
    made = Programs(folder)
    made.add("soci-pipeline", f'exec {sys.executable} -m soci_pipeline "$@"')
    made.add("pip", ":")
    made.add(
        "python3",
        f"""case "$1 $2" in
        "-m venv")
            mkdir -p "$3/bin"
            ln -sf "{folder}/python3" "$3/bin/python"
            ln -sf "{folder}/soci-pipeline" "$3/bin/";;
        "-m pip") shift 2; exec "{folder}/pip" "$@";;
        *) exec {sys.executable} "$@";;
        esac""",
    )
    return made


@pytest.fixture
def env(programs: Programs) -> dict[str, str]:
    return {**programs.env, "PYTHONPATH": str(REPOSITORY / "src")}


@pytest.fixture
def signed_in(client: RegistryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The login of the registry in the environment of this process."""
    monkeypatch.setenv("SOCI_PIPELINE_REGISTRY", client.registry)
    monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_USERNAME", LOGIN.username)
    monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_PASSWORD", PASSWORD)


@pytest.fixture
def image(client: RegistryClient) -> str:
    return f"{client.registry}/{REPOSITORY_NAME}"


def _archive(folder: Path, platform: Platform) -> Path:
    """What `docker buildx build --output type=oci` writes: an image with a layer worth indexing, an attestation."""
    layout = Layout.create(folder / f"built-{platform.slug}")
    made = add_image(layout, platform, [large_layer(platform)])
    index = ImageIndex(manifests=(made, add_attestation(layout, made)))
    layout.set_roots([layout.add_document(index)])
    return oci_archive(folder / f"{platform.slug}.tar", layout)


def _push_both(runner: Runner, image: str) -> list[str]:
    digests = []
    for platform in (AMD64, ARM64):
        archive = str(_archive(runner.folder, platform))
        outputs = runner.run(PUSH, {"archive": archive, "image": image, "platform": str(platform), **LOGIN_INPUTS})
        digests.append(outputs["digest"])
    return digests


def _handed_over(image: str, *platforms: Platform) -> dict[str, dict[str, bytes]]:
    """Artifacts as the push action leaves them, of images that are in no registry."""
    return _artifacts(image, {each: Digest.of(each.slug.encode()) for each in platforms})


def _pushed(image: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, bytes]]:
    """Artifacts as the push action leaves them, of images pushed by its two commands in this process."""
    digests = {}
    for platform in (AMD64, ARM64):
        chosen, converted = ("--platform", str(platform)), str(folder / f"indexed-{platform.slug}")
        assert main(["convert", *chosen, "--drop-others", "--", str(_archive(folder, platform)), converted]) == 0
        capsys.readouterr()
        assert main(["push", "--json", *chosen, "--", converted, image]) == 0
        digests[platform] = Digest(json.loads(capsys.readouterr().out)["index"])
    return _artifacts(image, digests)


def _artifacts(image: str, digests: Mapping[Platform, Digest]) -> dict[str, dict[str, bytes]]:
    key = hashlib.sha256(image.encode()).hexdigest()[:12]
    return {f"soci-digest-{key}-{each.slug}": {each.slug: found.encode()} for each, found in digests.items()}


def test_the_actions_publish_both_platforms_under_tags_that_verify(
    client: RegistryClient,
    image: str,
    env: dict[str, str],
    programs: Programs,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runner = Runner(tmp_path, env)
    digests = _push_both(runner, image)
    assert len(set(digests)) == 2
    assert list(client.tags.list(REPOSITORY_NAME)) == [], "a push by digest writes no tag"

    outputs = runner.run(JOIN, {"image": image, "tags": "v1.2.0\n latest", **LOGIN_INPUTS})

    assert sorted(client.tags.list(REPOSITORY_NAME)) == ["latest", "v1.2.0"]
    for tag in ("latest", "v1.2.0"):
        found = client.manifests.head(REPOSITORY_NAME, tag)
        assert found is not None
        assert found.digest == outputs["digest"]
    request.getfixturevalue("signed_in")
    capsys.readouterr()
    command = ["verify", f"{image}:v1.2.0", "--all", "--json", "--platform", "linux/amd64", "--platform", "linux/arm64"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["ok"]
    assert programs.calls()
    assert not [call for call in programs.calls() if PASSWORD in call], "a password is in a command line"


def test_the_actions_install_what_the_lock_of_their_own_commit_pins(
    image: str, env: dict[str, str], programs: Programs, tmp_path: Path
) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        Runner(tmp_path, env).run(JOIN, {"image": image, "tags": ""})
    installs = [call for call in programs.calls() if call.startswith("pip install")]
    lock, project = installs[:2]
    assert "--require-hashes" in lock
    assert Path(lock.split()[-1]).resolve() == REPOSITORY / "requirements" / "command.txt"
    assert {"--no-deps", "--no-build-isolation"} <= set(project.split())
    assert Path(project.split()[-1]).resolve() == REPOSITORY


def test_a_platform_without_a_digest_is_named_and_no_tag_moves(
    client: RegistryClient, image: str, env: dict[str, str], tmp_path: Path
) -> None:
    runner = Runner(tmp_path, env, _handed_over(image, AMD64))
    with pytest.raises(subprocess.CalledProcessError) as failed:
        runner.run(JOIN, {"image": image, "tags": "v1", **LOGIN_INPUTS})
    assert "::error::linux/arm64 was not pushed" in failed.value.stdout
    with pytest.raises(RepositoryUnknown):
        list(client.tags.list(REPOSITORY_NAME))


def test_a_damaged_image_is_found_before_a_tag_moves(
    client: RegistryClient,
    image: str,
    env: dict[str, str],
    tmp_path: Path,
    signed_in: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runner = Runner(tmp_path, env, _pushed(image, tmp_path, capsys))
    blobs = [path for path in (tmp_path / "registry").rglob("*") if path.is_file() and path.stat().st_size > 10 << 20]
    assert blobs
    for path in blobs:
        data = bytearray(path.read_bytes())
        data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
        path.write_bytes(bytes(data))
    with pytest.raises(subprocess.CalledProcessError) as failed:
        runner.run(JOIN, {"image": image, "tags": "v1", **LOGIN_INPUTS})
    assert any(path.name in failed.value.stdout + failed.value.stderr for path in blobs), "it fails for another reason"
    assert list(client.tags.list(REPOSITORY_NAME)) == []


@pytest.mark.parametrize("name", ["archive", "image", "platform"])
def test_shell_text_in_an_input_of_push_is_not_run(name: str, image: str, env: dict[str, str], tmp_path: Path) -> None:
    inputs = {"archive": "image.tar", "image": image, "platform": "linux/amd64", **LOGIN_INPUTS} | {name: HOSTILE}
    with pytest.raises(subprocess.CalledProcessError):
        Runner(tmp_path, env).run(PUSH, inputs)
    assert not list(tmp_path.rglob("hacked"))


@pytest.mark.parametrize("name", ["image", "tags", "platforms"])
def test_shell_text_in_an_input_of_join_is_not_run(name: str, image: str, env: dict[str, str], tmp_path: Path) -> None:
    inputs = {"image": image, "tags": "v1", **LOGIN_INPUTS} | {name: HOSTILE}
    runner = Runner(tmp_path, env, _handed_over(inputs["image"], AMD64, ARM64))
    with pytest.raises(subprocess.CalledProcessError):
        runner.run(JOIN, inputs)
    assert not list(tmp_path.rglob("hacked"))


def test_an_empty_list_of_tags_is_an_error(image: str, env: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        Runner(tmp_path, env).run(JOIN, {"image": image, "tags": " ", **LOGIN_INPUTS})
    assert "the input tags is empty" in failed.value.stdout


def test_a_publication_through_prefect_gets_its_parameters_as_arguments_and_the_login_as_variables(
    env: dict[str, str], programs: Programs, tmp_path: Path
) -> None:
    programs.add("soci-pipeline", f'printf "%s\\n" "$@" "$PREFECT_API_URL" "$PREFECT_API_KEY" >"{tmp_path}/given"')
    inputs = {
        "image": "registry.example.com/acme/web",
        "source": "https://git.example.com/acme/web.git",
        "ref": HOSTILE,
        "tags": "{short_sha}\n*",
        "prefect-api-url": "https://prefect.example.com/api",
        "prefect-api-key": PASSWORD,
    }
    Runner(tmp_path, env).run(START, inputs)
    options = ["--tag", "{short_sha}", "--tag", "*", "--platform", "linux/amd64", "--platform", "linux/arm64"]
    assert (tmp_path / "given").read_text().splitlines() == [
        *("publish", "--remote", "--ref", HOSTILE, *options, "--", inputs["source"], inputs["image"]),
        *(inputs["prefect-api-url"], PASSWORD),
    ]
    assert not [call for call in programs.calls() if PASSWORD in call]
    assert not list(tmp_path.rglob("hacked"))


@pytest.mark.parametrize("action", [PUSH, JOIN, START])
def test_no_expression_stands_in_shell_text_and_every_used_action_is_pinned(action: str) -> None:
    for step in load(f"{action}/action.yml")["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        assert "uses" not in step or re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", step["uses"])
        assert "run" not in step or step["shell"] == "bash"


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_jobs_for_gitlab_publish_both_platforms_under_a_tag(
    shell: str, client: RegistryClient, image: str, env: dict[str, str], tmp_path: Path
) -> None:
    document = load(GITLAB)
    env = env | {
        "CI_REGISTRY": client.registry,
        "CI_REGISTRY_IMAGE": image,
        "CI_REGISTRY_USER": LOGIN.username,
        "CI_REGISTRY_PASSWORD": PASSWORD,
        "SOCI_TAGS": "v1 latest",
    }
    for platform in (AMD64, ARM64):
        job = {"SOCI_ARCHIVE": str(_archive(tmp_path, platform)), "SOCI_PLATFORM": str(platform)}
        run_gitlab_job(document, ".soci-push", tmp_path, env | job, shell=shell)
    assert list(client.tags.list(REPOSITORY_NAME)) == []
    run_gitlab_job(document, ".soci-join", tmp_path, env, shell=shell)
    assert sorted(client.tags.list(REPOSITORY_NAME)) == ["latest", "v1"]


def test_the_join_for_gitlab_names_a_platform_without_a_digest(image: str, env: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run_gitlab_job(load(GITLAB), ".soci-join", tmp_path, env | {"CI_REGISTRY_IMAGE": image, "SOCI_TAGS": "v1"})
    assert "linux/amd64 was not pushed" in failed.value.stderr


def test_shell_text_in_a_variable_of_gitlab_is_not_run(image: str, env: dict[str, str], tmp_path: Path) -> None:
    given = {"CI_REGISTRY_IMAGE": image, "SOCI_TAGS": HOSTILE, "SOCI_ARCHIVE": HOSTILE, "SOCI_PLATFORM": HOSTILE}
    for job in (".soci-push", ".soci-join"):
        with pytest.raises(subprocess.CalledProcessError):
            run_gitlab_job(load(GITLAB), job, tmp_path, env | given)
    assert not list(tmp_path.rglob("hacked"))


def _published_schema(name: str) -> Draft7Validator:
    """A schema of SchemaStore, as check-jsonschema carries it."""
    package = metadata.distribution("check-jsonschema").locate_file("check_jsonschema")
    return Draft7Validator(json.loads(Path(str(package), "builtin_schemas", "vendor", f"{name}.json").read_text()))


def _problems(schema: str, document: Any) -> list[str]:
    # `on` is a key of workflows, and a boolean of YAML 1.1.
    document = {"on" if key is True else key: value for key, value in document.items()}
    return [error.message for error in _published_schema(schema).iter_errors(document)]


@pytest.mark.parametrize(
    ("schema", "path"),
    [("github-actions", f"{PUSH}/action.yml"), ("github-actions", f"{JOIN}/action.yml"), ("gitlab-ci", GITLAB)],
)
def test_the_files_match_the_published_schemas(schema: str, path: str) -> None:
    assert _problems(schema, load(path)) == []


def _examples() -> list[Any]:
    return [yaml.safe_load(block.text) for block in blocks(REPOSITORY / PAGE) if block.language == "yaml"]


def test_the_examples_of_the_page_match_the_published_schemas() -> None:
    workflow, through_prefect, pipeline = _examples()
    assert _problems("github-workflows", workflow) == []
    assert _problems("github-workflows", through_prefect) == []
    assert _problems("gitlab-ci", pipeline) == []


def test_the_examples_of_the_page_give_what_the_actions_and_jobs_have() -> None:
    """The page is copied; a renamed input there would fail in somebody else's CI."""
    workflow, through_prefect, pipeline = _examples()
    jobs = [*workflow["jobs"].values(), *through_prefect["jobs"].values()]
    steps = [step for job in jobs for step in job["steps"]]
    used = {
        step["uses"].split("@")[0].partition("soci-pipeline/")[2]: step
        for step in steps
        if "soci-pipeline/" in step.get("uses", "")
    }
    assert set(used) == {PUSH, JOIN, START}
    for action, step in used.items():
        known = load(f"{action}/action.yml")["inputs"]
        assert set(step["with"]) <= set(known)
        assert {name for name, each in known.items() if each.get("required")} <= set(step["with"])
    assert {job["extends"] for job in pipeline.values() if isinstance(job, dict) and "extends" in job} >= {
        ".soci-push",
        ".soci-join",
    }
    runners = {each["runner"] for each in workflow["jobs"]["platform"]["strategy"]["matrix"]["include"]}
    assert runners == {"ubuntu-24.04", "ubuntu-24.04-arm"}
