"""Requests: what cannot be meant is refused with the parameter's name, before a run or a build is made of it."""

from typing import Any

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.request import BranchRequest, PublishRequest
from tests.support.images import AMD64, ARM64

GIVEN: dict[str, Any] = {"image": "registry.example.com/team/app", "source": "https://git.example.com/app.git"}


def test_image_and_source_are_enough() -> None:
    request = PublishRequest.check(GIVEN)
    assert request.platforms == (AMD64, ARM64)
    assert request.tags == ("{short_sha}",)
    assert (request.verify, request.builder, request.toolchain) == ("sample", "auto", "native")
    assert request.soci.version == "v2"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": "registry.example.com/team/app:1.0"}, "image: .*has a tag"),
        ({"image": "Registry/UPPER"}, "image: .*lower case"),
        ({"image": "https://registry.example.com/app"}, "image: not a valid image reference"),
        ({"tags": []}, "tags: at least one tag"),
        ({"tags": ["{commit}"]}, "tags: unknown field {commit}"),
        ({"tags": ["-x"]}, "tags: not a valid tag"),
        ({"tags": ["a b"]}, "tags: not a valid tag"),
        ({"source": "ext::sh -c id"}, "source: git's remote helpers are not allowed"),
        ({"ref": "--upload-pack=x"}, "ref: not a branch"),
        ({"platforms": []}, "platforms: at least one"),
        ({"platforms": ["linux/amd65"]}, "platforms.*unknown architecture 'amd65'"),
        ({"platforms": ["amd64"]}, "platforms.*not a valid platform"),
        ({"platforms": ["unknown/unknown"]}, "platforms: unknown/unknown is not"),
        ({"platforms": ["linux/arm64", "linux/aarch64", "linux/arm64/v8"]}, "platforms: duplicate: linux/arm64"),
        ({"context": "../other"}, "context: .*not a path inside the source"),
        ({"context": "/etc"}, "context: .*not a path inside the source"),
        ({"dockerfile": "/etc/passwd"}, "is an absolute path"),
        ({"context": "app", "dockerfile": "../../x"}, "not a path inside the source"),
        ({"target": "a b"}, "target: .*not a valid build stage name"),
        ({"build_args": {"A B": "x"}}, "build_args: .*not a valid build argument name"),
        ({"build_args": {"NPM_TOKEN": "x"}}, "build_args: .*NPM_TOKEN looks like a secret"),
        ({"build_args": {"db_password": "x"}}, "looks like a secret"),
        ({"build_args": {"INDEX": "https://robot:hunter2@pypi.example.com/simple"}}, "INDEX looks like a secret"),
        ({"build_secrets": {"npm": "hunter2"}}, "build_secrets: the build secret npm must name"),
        ({"build_secrets": {"../x": "secret/npm"}}, "not a valid build secret"),
        ({"source_credentials": "ghp_0123"}, "source_credentials: .*must name"),
        ({"builder": "kaniko"}, "builder: "),
        ({"builder": "prebuilt"}, "prebuilt requires the parameter prebuilt"),
        ({"prebuilt": "/srv/{platform}.tar"}, "requires the parameter prebuilt"),
        ({"soci": {"version": "v3"}}, "soci.version: "),
        ({"verify": "never"}, "verify: "),
        ({"worker_wait": -1}, "worker_wait"),
        ({"cache": "local"}, "cache: "),
        ({"cache": "registry", "builder": "docker"}, "builder docker cannot keep a build cache; use auto or buildx"),
        (
            {"cache": "registry", "builder": "prebuilt", "prebuilt": "/a.tar"},
            "builder prebuilt cannot keep a build cache",
        ),
        ({"cache_reference": "registry.example.com/cache"}, "cache_reference: .*has no tag"),
        ({"cache_reference": "cache.example.com:5000/{image}"}, "cache_reference: .*has no tag"),
        ({"cache_reference": "cache.example.com/all:{platform}-{ref}"}, "cache_reference: .*must contain {image}"),
        ({"cache_reference": "{image}:cache-{ref}"}, "cache_reference: .*must contain {platform}"),
        ({"cache_reference": "{image}:cache-{platform}"}, "cache_reference: .*must contain {ref}"),
        ({"cache_reference": "{image}:{platform}-{ref}-{sha}"}, "cache_reference: .*cannot contain {sha}"),
        ({"cache_reference": "{image}/{ref}:{platform}-{ref}"}, "cache_reference: .*cannot contain {ref}"),
        ({"cache_reference": "{image}:a b-{platform}-{ref}"}, "cache_reference: .*not a valid tag"),
        ({"colour": "red"}, "colour: "),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_name_of_the_parameter(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        PublishRequest.check(GIVEN | change)


@pytest.mark.parametrize(
    "change",
    [{"build_secrets": {"npm": "hunter2"}}, {"source_credentials": "hunter2"}, {"source": "https://u:hunter2@h.io/a"}],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as raised:
        PublishRequest.check(GIVEN | change)
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_every_fault_of_a_request_is_named_at_once() -> None:
    with pytest.raises(InvalidInput) as raised:
        PublishRequest.check(GIVEN | {"tags": ["{x}"], "context": "/", "ref": "-"})
    assert all(name in raised.value.reason for name in ("tags: ", "context: ", "ref: "))


def test_one_tag_and_one_platform_may_be_given_as_text() -> None:
    request = PublishRequest.check(GIVEN | {"tags": "latest", "platforms": "linux/aarch64"})
    assert (request.tags, request.platforms) == (("latest",), (ARM64,))


def test_words_that_only_resemble_secrets_are_taken_as_build_arguments() -> None:
    arguments = {"TOKENIZER": "bpe", "SECRETARY": "x", "PASSWORDLESS": "1", "VERSION": "1"}
    assert PublishRequest.check(GIVEN | {"build_args": arguments}).build_args == arguments


def test_a_dockerfile_may_lie_beside_its_context_within_the_source() -> None:
    request = PublishRequest.check(GIVEN | {"context": "app/", "dockerfile": "../docker/Dockerfile"})
    assert (request.context, request.dockerfile_in_source) == ("app", "docker/Dockerfile")


def test_secrets_are_named_by_block_or_arn() -> None:
    places = {"npm": "secret/npm-token", "pip": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:pip-AbCdEf"}
    assert PublishRequest.check(GIVEN | {"build_secrets": places}).build_secrets == places
    managed = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:rds!db-1-AbCdEf"
    assert PublishRequest.check(GIVEN | {"source_credentials": managed}).source_credentials == managed


@pytest.mark.parametrize("name", ["a{b}", "ä", "a:b"])
def test_an_arn_that_no_secret_can_have_is_refused_at_the_form(name: str) -> None:
    place = f"arn:aws:secretsmanager:eu-west-1:123456789012:secret:{name}"
    with pytest.raises(InvalidInput, match="ARN of a secret"):
        PublishRequest.check(GIVEN | {"source_credentials": place})
    with pytest.raises(InvalidInput, match="ARN of a secret"):
        PublishRequest.check(GIVEN | {"build_secrets": {"npm": place}})


def test_a_branch_is_told_one_platform_and_one_commit_and_survives_json() -> None:
    commit = ResolvedSource(
        url="https://git.example.com/app.git", ref="refs/heads/main", commit="a" * 40, commit_time=1
    )
    request = PublishRequest.check(GIVEN | {"build_args": {"A": "b"}, "soci": {"version": "v1"}})
    branch = request.branch(Platform("linux", "arm64"), commit)
    assert (branch.platform, branch.source, branch.build_args) == (ARM64, commit, {"A": "b"})
    assert BranchRequest.model_validate(branch.model_dump(mode="json")) == branch


def test_a_build_requires_its_context_and_its_dockerfile_and_a_prebuilt_image_requires_no_file() -> None:
    built = PublishRequest.check(GIVEN | {"context": "app", "dockerfile": "docker/Dockerfile"})
    assert built.required_files == ("app", "app/docker/Dockerfile")
    prebuilt = PublishRequest.check(GIVEN | {"builder": "prebuilt", "prebuilt": "/srv/{platform}.tar"})
    assert prebuilt.required_files == ()


def test_the_provenance_statement_names_no_place_of_a_secret() -> None:
    request = PublishRequest.check(
        GIVEN | {"source_credentials": "secret/git-token", "build_secrets": {"npm": "secret/npm-token"}}
    )
    assert "secret" not in str(request.statement_parameters())
