"""The AWS partitions: their regions and DNS suffixes.

Names and domains are those of the AWS SDKs (``partitions.json`` of botocore; a test compares them). They are repeated
here because image references must be parsed without boto3 too.
"""

import re
from dataclasses import dataclass

from soci_pipeline.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition; ``dual_stack_suffix`` is the domain of ECR's dual-stack endpoints, None if there are none."""

    name: str
    dns_suffix: str
    dual_stack_suffix: str | None
    regions: re.Pattern[str]


PARTITIONS = (
    Partition("aws-cn", "amazonaws.com.cn", "on.amazonwebservices.com.cn", re.compile(r"cn-[a-z]+-\d+")),
    Partition("aws-us-gov", "amazonaws.com", "on.aws", re.compile(r"us-gov-[a-z]+-\d+")),
    Partition("aws-iso", "c2s.ic.gov", None, re.compile(r"us-iso-[a-z]+-\d+")),
    Partition("aws-iso-b", "sc2s.sgov.gov", None, re.compile(r"us-isob-[a-z]+-\d+")),
    Partition("aws-iso-e", "cloud.adc-e.uk", None, re.compile(r"eu-isoe-[a-z]+-\d+")),
    Partition("aws-iso-f", "csp.hci.ic.gov", None, re.compile(r"us-isof-[a-z]+-\d+")),
    Partition("aws-eusc", "amazonaws.eu", "on.amazonwebservices.eu", re.compile(r"eusc-[a-z]+-[a-z]+-\d+")),
    # Last, with a generic pattern: this partition keeps getting regions with new names.
    Partition("aws", "amazonaws.com", "on.aws", re.compile(r"[a-z]{2}-[a-z]+-\d+")),
)
_SUFFIXES = frozenset(
    suffix for each in PARTITIONS for suffix in (each.dns_suffix, each.dual_stack_suffix) if suffix is not None
)


def partition_of(region: str) -> Partition:
    """Return the partition of a region; raise `InvalidInput` if it is not a region."""
    found = next((each for each in PARTITIONS if each.regions.fullmatch(region)), None)
    if found is None:
        raise InvalidInput(f"not an AWS region: {region[:60]!r}", advice="A region looks like eu-west-1.")
    return found


def is_aws_suffix(suffix: str) -> bool:
    """Whether a domain is the DNS suffix of a partition."""
    return suffix in _SUFFIXES
