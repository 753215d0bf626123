"""What an instance does for itself, with real processes, a metadata service and an emulated group."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from soci_pipeline.aws.auto_scaling import GroupInstance, client
from soci_pipeline.aws.instance_metadata import InstanceMetadata
from soci_pipeline.capacity.agent import NOTICE, Agent
from soci_pipeline.capacity.machine import Machine
from soci_pipeline.errors import StackError
from soci_pipeline.prefect_api import RunState
from tests.support.auto_scaling import instances, make_group
from tests.support.capacity import MetadataService, metadata_service
from tests.unit.capacity.test_machine import sleeping

RUN = str(UUID(int=1))


@dataclass
class Runs:
    """Prefect's word on single runs."""

    states: dict[str, str]
    away: bool = False
    said: list[tuple[str, str]] = field(default_factory=list)

    def state(self, run: str) -> RunState:
        if self.away:
            raise StackError("Prefect does not answer", temporary=True)
        return RunState(self.states[run], "")

    def reschedule(self, run: str, message: str) -> None:
        self.said.append(("again", run))
        self.states[run] = "SCHEDULED"

    def end_as_cancelled(self, run: str, message: str) -> None:
        self.said.append(("cancelled", run))


@dataclass
class Setup:
    service: MetadataService
    scaling: Any
    agent: Agent
    runs: Runs
    work: Path
    folder: Path

    @property
    def protected(self) -> bool:
        return bool(instances(self.scaling)[0]["ProtectedFromScaleIn"])


@pytest.fixture
def setup(tmp_path: Path, shared_aws: str) -> Iterator[Setup]:
    work, folder = tmp_path / "work", tmp_path / "run"
    folder.mkdir()
    with metadata_service() as service, InstanceMetadata(service.url) as metadata:
        scaling = make_group(shared_aws, desired=1)
        service.answers["instance-id"] = instances(scaling)[0]["InstanceId"]
        runs = Runs({RUN: "RUNNING"})
        instance = GroupInstance(metadata.instance_id(), client())
        agent = Agent(metadata, instance, Machine(work), runs, folder)
        yield Setup(service, scaling, agent, runs, work, folder)


def test_a_busy_instance_is_protected_and_an_idle_one_is_not(setup: Setup) -> None:
    assert setup.protected, "as the group starts it"
    setup.agent.step()
    assert not setup.protected
    with sleeping(setup.work, RUN):
        setup.agent.step()
        assert setup.protected
    setup.agent.step()
    assert not setup.protected, "a run that was killed protects nobody"


def test_an_agent_that_was_killed_while_busy_does_not_leave_the_instance_protected(setup: Setup) -> None:
    with sleeping(setup.work, RUN):
        setup.agent.step()
    assert setup.protected
    old = setup.agent
    Agent(old.metadata, old.instance, old.machine, old.runs, old.folder).step()
    assert not setup.protected


def test_an_interrupted_instance_hands_its_runs_on_and_takes_no_more(setup: Setup) -> None:
    with sleeping(setup.work) as worker, sleeping(setup.work, RUN) as run:
        assert not setup.agent.step()
        setup.service.interrupt()
        assert setup.agent.step()
        assert worker.wait() < 0
        assert run.wait() < 0
    assert setup.runs.said == [("again", RUN)]
    assert "spot" in json.loads((setup.folder / NOTICE).read_text())["reason"]
    assert setup.agent.step(), "and then there is nothing left to do"
    assert len(setup.runs.said) == 1


def test_an_instance_that_its_group_ends_does_the_same(setup: Setup) -> None:
    setup.service.answers["autoscaling/target-lifecycle-state"] = "Terminated"
    with sleeping(setup.work, RUN):
        assert setup.agent.step()
    assert setup.runs.said == [("again", RUN)]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("COMPLETED", []),
        ("FAILED", []),
        ("CANCELLED", []),
        ("SCHEDULED", []),
        ("CANCELLING", [("cancelled", RUN)]),
        ("PENDING", [("again", RUN)]),
        ("CRASHED", [("again", RUN)]),
    ],
)
def test_a_run_goes_back_only_where_it_has_not_ended_otherwise(
    setup: Setup, state: str, said: list[tuple[str, str]]
) -> None:
    setup.runs.states[RUN] = state
    setup.service.interrupt()
    with sleeping(setup.work, RUN):
        assert setup.agent.step()
    assert setup.runs.said == said


def test_an_agent_that_dies_in_between_is_carried_on_by_the_next(setup: Setup) -> None:
    setup.service.interrupt()
    setup.runs.away = True
    with sleeping(setup.work, RUN) as run:
        assert not setup.agent.step(), "Prefect is away"
        assert run.wait() < 0
    setup.runs.away = False
    old = setup.agent
    assert Agent(old.metadata, old.instance, old.machine, old.runs, old.folder).step()
    assert setup.runs.said == [("again", RUN)]


def test_a_metadata_service_that_fails_is_asked_again(setup: Setup) -> None:
    setup.service.broken = 503
    with sleeping(setup.work, RUN) as run:
        assert not setup.agent.step()
        assert run.poll() is None
    setup.service.broken = None
    setup.agent.step()
    assert not setup.protected
