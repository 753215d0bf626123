"""Who deletes in which registry, and who can say what has no tag."""

from datetime import timedelta
from pathlib import Path

import boto3
import pytest

from soci_pipeline.aws.ecr_images import EcrImages
from soci_pipeline.errors import InvalidInput
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.retention.remover import OneByOne
from soci_pipeline.retention.repository_use import in_use_by_ecs, remover_for, untagged
from tests.support.aws import unique
from tests.support.published import REPOSITORY
from tests.support.registries import AT_ONCE, registry

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
MANIFEST = '{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []}'


def test_ecr_is_deleted_from_through_its_own_interface_and_others_through_the_distributions(
    tmp_path: Path, shared_aws: str
) -> None:
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
        own = ImageReference.parse(f"{ECR}/team/app")
        public = ImageReference.parse("public.ecr.aws/team/app")
        here = ImageReference.parse(f"{client.registry}/{REPOSITORY}")
        kinds = [type(remover_for(client, image)) for image in (own, public, here)]
    assert kinds == [EcrImages, OneByOne, OneByOne]


def test_what_a_publication_pushed_just_now_is_not_taken_for_a_leaving(shared_aws: str) -> None:
    ecr, name = boto3.client("ecr"), unique("team/app")
    ecr.create_repository(repositoryName=name)
    ecr.put_image(repositoryName=name, imageManifest=MANIFEST)
    image = ImageReference.parse(f"{ECR}/{name}")
    assert untagged(image, None) == []
    assert untagged(image, timedelta(days=1)) == []
    assert len(untagged(image, timedelta(seconds=-60))) == 1


def test_other_registries_cannot_list_what_has_no_tag() -> None:
    with pytest.raises(InvalidInput, match="cannot list untagged manifests"):
        untagged(ImageReference.parse("registry.example.com/app"), timedelta(days=1))


def test_without_clusters_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
        assert in_use_by_ecs(client, ImageReference.parse(f"{client.registry}/{REPOSITORY}"), []) == frozenset()
