"""An Auto Scaling group in an emulated AWS that is spoken to over HTTP."""

import contextlib
import functools
from typing import Any

import boto3
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

GROUP = "soci-arm64-workers"
_IMAGE = "ami-12c6146b"
_LAUNCHED = "workers"


@functools.cache
def emulated_aws() -> str:
    """The address of the emulator: one for the whole session, since it takes seconds to fill itself."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


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
