"""The doctor on a machine with AWS credentials: account, role, region, ECR, and the actions that are missing."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from starlette.requests import Request
from starlette.responses import Response

from soci_pipeline.aws import identity
from soci_pipeline.aws.client import AwsUnreachable
from soci_pipeline.aws.ecr import EcrRegistry
from soci_pipeline.aws.ecr_access import find_access
from soci_pipeline.aws.ecr_actions import CHECK, CREATE, LOGIN, PRUNE, PULL, PUSH
from soci_pipeline.aws.identity import Identity, is_likely
from soci_pipeline.cli import main
from soci_pipeline.commands.ecr_diagnosis import EcrTarget
from soci_pipeline.commands.finding import Mark
from soci_pipeline.errors import ExitCode
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import RegistrySettings, Settings
from tests.support.aws import ACCOUNT, REGION, REGISTRY, emulated_password
from tests.support.ecr_name import EcrStart
from tests.support.strange import strange

REPOSITORY = "team/app"
PLACE = EcrRegistry(REGISTRY, REGION, ACCOUNT)
ROLE = Identity(ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/builder/session", REGION)
ALL = (*LOGIN, *PULL, *PUSH, *CHECK, *CREATE, *PRUNE)
WRITES = {"PutImage", "InitiateLayerUpload", "CreateRepository", "PutLifecyclePolicy"}
Answer = dict[str, Any]


class Aws:
    """ECR and IAM that deny what a test says; ``simulator`` is what IAM's simulator says, or None: denied too."""

    def __init__(self, denied: set[str], simulator: Mapping[str, str] | None = None) -> None:
        self.denied = denied
        self.simulator = simulator
        self.called: list[str] = []
        self.asked_about = ""

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        target = request.headers.get("x-amz-target")
        return self._simulate(body.decode()) if target is None else self._ecr(target.rpartition(".")[2])

    def _ecr(self, action: str) -> Response:
        self.called.append(action)
        if action in self.denied:
            return _json(
                400, {"__type": "AccessDeniedException", "message": f"not authorized to perform: ecr:{action}"}
            )
        return _json(400, {"__type": "RepositoryNotFoundException", "message": "no such thing"})

    def _simulate(self, body: str) -> Response:
        self.asked_about = body
        if self.simulator is None:
            error = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
            return Response(error, 403, media_type="text/xml")
        members = "".join(
            f"<member><EvalActionName>ecr:{name}</EvalActionName><EvalDecision>{said}</EvalDecision></member>"
            for name, said in self.simulator.items()
        )
        result = f"<SimulatePrincipalPolicyResult><EvaluationResults>{members}</EvaluationResults>"
        closed = f"{result}</SimulatePrincipalPolicyResult>"
        return Response(
            f"<SimulatePrincipalPolicyResponse>{closed}</SimulatePrincipalPolicyResponse>", media_type="text/xml"
        )


def _json(status: int, document: Mapping[str, str]) -> Response:
    return Response(json.dumps(document), status, media_type="application/x-amz-json-1.1")


@contextmanager
def answering(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with strange(aws.answer) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}")
        monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        yield


def test_missing_actions_are_found_by_calls_that_write_nothing(
    credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws = Aws(denied={"UploadLayerPart", "DescribeImages"})
    with answering(aws, monkeypatch):
        found = find_access(PLACE, REPOSITORY, ROLE, ALL)
    assert found.missing == ("DescribeImages", "UploadLayerPart")
    assert set(found.unknown) == WRITES
    assert set(found.allowed) == set(ALL) - WRITES - set(found.missing)
    assert set(aws.called) == set(ALL) - WRITES


def test_iams_simulator_tells_of_what_would_write_where_the_role_may_ask_it(
    credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = dict.fromkeys(WRITES, "allowed") | {"CreateRepository": "implicitDeny", "PutImage": "explicitDeny"}
    aws = Aws(denied=set(), simulator=said)
    with answering(aws, monkeypatch):
        found = find_access(PLACE, REPOSITORY, ROLE, ALL)
    assert (found.missing, found.unknown) == (("CreateRepository", "PutImage"), ())
    assert f"arn%3Aaws%3Aiam%3A%3A{ACCOUNT}%3Arole%2Fbuilder" in aws.asked_about
    assert f"arn%3Aaws%3Aecr%3A{REGION}%3A{ACCOUNT}%3Arepository%2Fteam%2Fapp" in aws.asked_about
    assert not WRITES & set(aws.called)


def test_an_aws_that_does_not_answer_is_no_missing_permission(
    credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(AwsUnreachable):
        find_access(PLACE, REPOSITORY, ROLE, LOGIN)


@pytest.mark.parametrize(
    ("arn", "role", "source"),
    [
        (ROLE.arn, "builder", f"arn:aws:iam::{ACCOUNT}:role/builder"),
        (f"arn:aws-cn:sts::{ACCOUNT}:assumed-role/b/s", "b", f"arn:aws-cn:iam::{ACCOUNT}:role/b"),
        (f"arn:aws:iam::{ACCOUNT}:user/anna", None, f"arn:aws:iam::{ACCOUNT}:user/anna"),
    ],
)
def test_the_policies_of_an_assumed_role_are_those_of_the_role(arn: str, role: str | None, source: str) -> None:
    found = Identity(ACCOUNT, arn, REGION)
    assert (found.role, found.policy_source) == (role, source)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"AWS_EC2_METADATA_DISABLED": "true"}, False),
        ({"AWS_EC2_METADATA_DISABLED": "true", "AWS_PROFILE": "x"}, True),
        ({"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x"}, True),
    ],
)
def test_credentials_are_likely_where_something_names_them(env: dict[str, str], expected: bool) -> None:
    assert is_likely(env) is expected


def test_the_machine_is_shown_with_its_account_role_and_region(
    aws: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker"))
    main(["doctor", "--json"])
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)["checks"]}
    assert found["AWS account"]["detail"].startswith(f"account {ACCOUNT}, ")
    assert found["AWS account"]["detail"].endswith(f"region {REGION}")
    assert found["ECR"]["mark"] == "ok"
    assert "docker login" not in str(found["registry credentials"])


def test_without_a_region_the_machine_says_which_variable_to_set(
    aws: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    main(["doctor", "--json"])
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)["checks"]}
    assert (found["AWS account"]["ok"], found["ECR"]["ok"]) == (False, False)
    assert "AWS_REGION" in found["AWS account"]["advice"]


@pytest.fixture(autouse=True)
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    # The emulator fails for what it does not know.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def _doctor(capsys: pytest.CaptureFixture[str], image: str, authority: Path, secret: str) -> tuple[int, Answer]:
    status = main(["doctor", image, "--ca-file", str(authority), "--json"])
    said = capsys.readouterr()
    assert secret not in said.out + said.err
    assert "docker login" not in said.out
    answer: Answer = json.loads(said.out)
    return status, {"not_checked": answer["not_checked"], **{each["name"]: each for each in answer["checks"]}}


def test_an_image_on_ecr_is_checked_with_the_role_and_nothing_is_left(
    aws: str, ecr_registry: EcrStart, capsys: pytest.CaptureFixture[str]
) -> None:
    ecr = boto3.client("ecr", region_name=REGION)
    ecr.create_repository(repositoryName=REPOSITORY, imageTagMutability="IMMUTABLE")
    status, found = _doctor(
        capsys, f"{REGISTRY}/{REPOSITORY}:v1", ecr_registry(emulated_password()), emulated_password()
    )
    assert found["AWS account"]["detail"].startswith(f"account {ACCOUNT}")
    assert (found["login"]["mark"], found["push"]["mark"]) == ("ok", "ok")
    assert (found["tags"]["mark"], found["tags"]["detail"]) == ("warn", "IMMUTABLE: v1 cannot move")
    assert (status, found["not_checked"]) == (ExitCode.OK, [])
    assert ecr.list_images(repositoryName=REPOSITORY)["imageIds"] == []


def test_a_repository_that_is_missing_on_ecr_ends_the_checks_with_the_next_step(
    aws: str, ecr_registry: EcrStart, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    authority, password = ecr_registry(emulated_password()), emulated_password()
    status, found = _doctor(capsys, f"{REGISTRY}/{REPOSITORY}", authority, password)
    assert (status, found["repository"]["mark"]) == (ExitCode.INVALID_INPUT, "fail")
    assert "SOCI_PIPELINE_REGISTRY_CREATE_REPOSITORY" in found["repository"]["advice"]
    monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_CREATE_REPOSITORY", "true")
    _, found = _doctor(capsys, f"{REGISTRY}/{REPOSITORY}", authority, password)
    assert found["repository"]["mark"] == "warn"
    assert boto3.client("ecr", region_name=REGION).describe_repositories()["repositories"] == []


def test_a_token_that_ecr_does_not_take_is_a_matter_of_the_role_and_never_of_docker_login(
    aws: str, ecr_registry: EcrStart, capsys: pytest.CaptureFixture[str]
) -> None:
    boto3.client("ecr", region_name=REGION).create_repository(repositoryName=REPOSITORY)
    status, found = _doctor(capsys, f"{REGISTRY}/{REPOSITORY}", ecr_registry("another"), emulated_password())
    assert (status, found["login"]["mark"]) == (ExitCode.CREDENTIALS, "fail")
    assert "role" in found["login"]["advice"]


def _target(**registry: Any) -> EcrTarget:
    image = ImageReference.parse(f"{REGISTRY}/{REPOSITORY}")
    return EcrTarget(PLACE, image, Settings(registry=RegistrySettings(**registry)))


@pytest.mark.parametrize(
    ("denied", "mark", "advice"),
    [
        ({"UploadLayerPart"}, Mark.FAIL, "Add ecr:UploadLayerPart on the repository to the policy of the role."),
        ({"GetAuthorizationToken"}, Mark.FAIL, "Add ecr:GetAuthorizationToken"),
        ({"GetLifecyclePolicy"}, Mark.WARN, "Only the machine that runs publish-image requires it."),
        ({"BatchDeleteImage"}, Mark.OK, ""),
    ],
)
def test_a_missing_action_fails_where_publishing_needs_it(
    aws: str, monkeypatch: pytest.MonkeyPatch, denied: set[str], mark: Mark, advice: str
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with strange(Aws(denied).answer) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", f"http://{address}")
        target = _target()
        said, deletion = target.check_actions(), target.check_deletion()
    assert said.mark is mark
    assert advice in (said.advice or "")
    assert (deletion.mark is Mark.WARN) == ("BatchDeleteImage" in denied)


def test_a_worker_that_may_not_look_at_the_repository_is_a_warning(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with strange(Aws({"DescribeRepositories"}).answer) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", f"http://{address}")
        target = _target()
        said, tags = target.check_repository(), target.check_tags()
    assert (said.mark, "ecr:DescribeRepositories" in said.detail) == (Mark.WARN, True)
    assert tags.detail == "unknown: cannot read the repository"


def test_credentials_are_likely_where_the_home_folder_has_a_profile(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    assert not is_likely(env)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").touch()
    assert is_likely(env)


@pytest.mark.parametrize(("vendor", "expected"), [(b"Amazon EC2\n", True), (b"\xff", False), (None, False)])
def test_credentials_are_likely_on_ec2(
    vendor: bytes | None, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sys_vendor"
    if vendor is not None:
        file.write_bytes(vendor)
    monkeypatch.setattr(identity, "_VENDOR", file)
    assert is_likely({}) is expected
