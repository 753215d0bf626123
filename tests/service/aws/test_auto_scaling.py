"""Auto Scaling groups and their instances, in an emulated AWS over HTTP."""

import pytest

from soci_pipeline.aws.auto_scaling import AutoScalingGroup, GroupInstance, client
from soci_pipeline.capacity.controller import GroupState
from soci_pipeline.capacity.policy import Bounds
from soci_pipeline.errors import InvalidInput
from tests.support.auto_scaling import GROUP, instances, make_group


@pytest.fixture
def aws(shared_aws: str) -> str:
    return shared_aws


def test_a_group_says_its_capacity_and_its_bounds(aws: str) -> None:
    make_group(aws, desired=1)
    assert AutoScalingGroup(GROUP, client()).state() == GroupState(1, Bounds(0, 4))


def test_raising_the_capacity_starts_instances_and_lowering_it_ends_those_that_are_not_protected(aws: str) -> None:
    scaling = make_group(aws, protected=False)
    group = AutoScalingGroup(GROUP, client())
    group.set_desired(2)
    busy, _ = (each["InstanceId"] for each in instances(scaling))
    GroupInstance(busy, client()).protect(GROUP, protected=True)
    group.set_desired(1)
    assert [each["InstanceId"] for each in instances(scaling)] == [busy]


def test_an_instance_knows_its_group_and_whether_it_is_protected(aws: str) -> None:
    (machine,) = instances(make_group(aws, desired=1))
    instance = GroupInstance(machine["InstanceId"], client())
    for protected in (False, True):
        instance.protect(GROUP, protected=protected)
        membership = instance.membership()
        assert membership is not None
        assert (membership.group, membership.protected) == (GROUP, protected)


def test_an_instance_outside_of_any_group_has_no_membership(aws: str) -> None:
    make_group(aws)
    assert GroupInstance("i-0123456789abcdef0", client()).membership() is None


def test_a_group_that_does_not_exist_is_named(aws: str) -> None:
    with pytest.raises(InvalidInput, match="there is no Auto Scaling group workers-of-somebody"):
        AutoScalingGroup("workers-of-somebody", client()).state()


def test_without_a_region_the_action_and_the_setting_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(InvalidInput, match=r"(?s)autoscaling:DescribeAutoScalingGroups.*AWS_REGION"):
        client()
