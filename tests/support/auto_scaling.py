"""An Auto Scaling group in an emulated AWS that is spoken to over HTTP."""

import contextlib
from typing import Any

import boto3
from botocore.exceptions import ClientError

GROUP = "soci-arm64-workers"
_IMAGE = "ami-12c6146b"
_LAUNCHED = "workers"


def make_group(url: str, *, desired: int = 0, most: int = 4, protected: bool = True) -> Any:
    """A new group of instances as the template makes it, in place of an earlier one; returns a client."""
    scaling = boto3.client("autoscaling", endpoint_url=url)
    with contextlib.suppress(ClientError):
        scaling.delete_auto_scaling_group(AutoScalingGroupName=GROUP, ForceDelete=True)
    with contextlib.suppress(ClientError):
        scaling.create_launch_configuration(
            LaunchConfigurationName=_LAUNCHED, ImageId=_IMAGE, InstanceType="c7g.xlarge"
        )
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=GROUP,
        LaunchConfigurationName=_LAUNCHED,
        MinSize=0,
        MaxSize=most,
        DesiredCapacity=desired,
        AvailabilityZones=[f"{scaling.meta.region_name}a"],
        NewInstancesProtectedFromScaleIn=protected,
    )
    return scaling


def instances(scaling: Any) -> list[dict[str, Any]]:
    """The instances of the group."""
    found: list[dict[str, Any]] = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])[
        "AutoScalingGroups"
    ][0]["Instances"]
    return found
