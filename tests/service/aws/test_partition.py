"""The table of partitions says what the SDK's own data says."""

import json
from pathlib import Path

import botocore
import pytest

from soci_pipeline.aws.partition import PARTITIONS, is_aws_suffix, partition_of
from soci_pipeline.errors import InvalidInput

_DATA = Path(botocore.__file__).parent / "data"


def test_the_partitions_and_their_domains_are_those_of_the_sdk() -> None:
    published = json.loads((_DATA / "partitions.json").read_text())["partitions"]
    assert {each["id"]: each["outputs"]["dnsSuffix"] for each in published} == {
        each.name: each.dns_suffix for each in PARTITIONS
    }


def test_every_region_that_the_sdk_knows_is_in_its_own_partition() -> None:
    published = json.loads((_DATA / "endpoints.json").read_text())["partitions"]
    known = [(region, each["partition"]) for each in published for region in each["regions"]]
    assert len(known) > 30
    assert [(region, partition_of(region).name) for region, _ in known] == known


@pytest.mark.parametrize("text", ["", "eu", "eu-west", "EU-west-1", "eu-west-1\n", "eu-west-1.example.com", "a" * 500])
def test_what_is_no_region_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not an AWS region"):
        partition_of(text)


def test_a_domain_that_only_ends_like_one_of_aws_is_not_one() -> None:
    assert is_aws_suffix("amazonaws.com.cn")
    assert not is_aws_suffix("amazonaws.com.example.com")
    assert not is_aws_suffix("com")
