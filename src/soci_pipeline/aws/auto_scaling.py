"""An Auto Scaling group whose capacity follows the runs that wait, and the instance's part in it.

What the group must be like (its template is `deployments/cloudformation`): no scaling policies and no schedules of its
own; ``NewInstancesProtectedFromScaleIn`` on, so that an instance is not taken back between its start and its first run
(its agent lets go of the protection); a lifecycle hook on ``autoscaling:EC2_INSTANCE_TERMINATING`` with a heartbeat
timeout of 60 s and the default result ``CONTINUE``, so that an instance hears that it must go and has the time to hand
its runs on. Nobody completes that action: the minute is all it costs.

The control worker's role needs ``autoscaling:DescribeAutoScalingGroups`` (which takes no resource) and
``autoscaling:SetDesiredCapacity``; the workers' role needs ``autoscaling:DescribeAutoScalingInstances`` (no resource
either) and ``autoscaling:SetInstanceProtection`` on the group.
"""

from dataclasses import dataclass, field
from typing import Any

from soci_pipeline.aws.client import calling, config, session
from soci_pipeline.capacity.controller import GroupState
from soci_pipeline.capacity.instance import Membership
from soci_pipeline.capacity.policy import Bounds
from soci_pipeline.errors import InvalidInput


def client() -> Any:
    """A client of the region that boto3 finds."""
    with calling("autoscaling:DescribeAutoScalingGroups", on="this region"):
        return session().client("autoscaling", config=config())


@dataclass(frozen=True, slots=True)
class AutoScalingGroup:
    """One group, as the controller sees it."""

    name: str
    client: Any = field(repr=False)

    def state(self) -> GroupState:
        """The group's capacity and bounds; raises `InvalidInput` where there is no such group."""
        with calling("autoscaling:DescribeAutoScalingGroups", on=self.name):
            found = self.client.describe_auto_scaling_groups(AutoScalingGroupNames=[self.name])["AutoScalingGroups"]
        if not found:
            raise InvalidInput(
                f"there is no Auto Scaling group {self.name}",
                advice="Compare the name with the stack's outputs, and the region with AWS_REGION.",
            )
        group = found[0]
        return GroupState(desired=group["DesiredCapacity"], bounds=Bounds(group["MinSize"], group["MaxSize"]))

    def set_desired(self, count: int) -> None:
        """Ask for so many instances. A cooldown is not waited for: the policy has a patience of its own."""
        with calling("autoscaling:SetDesiredCapacity", on=self.name):
            self.client.set_desired_capacity(AutoScalingGroupName=self.name, DesiredCapacity=count, HonorCooldown=False)


@dataclass(frozen=True, slots=True)
class GroupInstance:
    """One instance, as its own agent sees it."""

    instance_id: str
    client: Any = field(repr=False)

    def membership(self) -> Membership | None:
        """The instance's place in its group; None where it is in none."""
        with calling("autoscaling:DescribeAutoScalingInstances", on=self.instance_id):
            answer = self.client.describe_auto_scaling_instances(InstanceIds=[self.instance_id])
        found = answer["AutoScalingInstances"]
        if not found:
            return None
        return Membership(found[0]["AutoScalingGroupName"], protected=bool(found[0]["ProtectedFromScaleIn"]))

    def protect(self, group: str, *, protected: bool) -> None:
        """Have the group spare this instance when its capacity is lowered, or no longer."""
        with calling("autoscaling:SetInstanceProtection", on=group):
            self.client.set_instance_protection(
                AutoScalingGroupName=group, InstanceIds=[self.instance_id], ProtectedFromScaleIn=protected
            )
