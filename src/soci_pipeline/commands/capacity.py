"""Let workers come and go: raise the capacity of Auto Scaling groups while runs wait, and lower it when they idle.

  capacity control --group POOL=GROUP…   on the control machine: keep each group as large as its work pool needs
  capacity agent                         on every instance: protect it while busy; when it must go, hand its runs on
  capacity simulate                      waiting time and cost for some rates of publications, on a Prefect server that
                                         is started for it, with a clock and groups that are made up

`control` and `agent` talk to the server that PREFECT_API_URL names (with PREFECT_API_AUTH_STRING or PREFECT_API_KEY)
and to AWS with boto3's own credentials; they run until they are stopped. The bounds of a group are its own minimum and
maximum size. docs/capacity.md describes them.

Exit statuses: 0 fine; 3 no such group, or a setting that cannot be meant; 7 boto3 is missing; 10 to 12 AWS refuses an
action, is out of reach, or wants other credentials; 22 Prefect refuses or does not answer (with --once); 130
interrupted.
"""

import argparse
import contextlib
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from soci_pipeline.capacity.controller import Controller, Decision
from soci_pipeline.capacity.policy import Policy
from soci_pipeline.commands import CommandResult, as_action
from soci_pipeline.commands.numbers import quantity, whole
from soci_pipeline.commands.signals import ending_on_signals
from soci_pipeline.errors import InvalidInput
from soci_pipeline.process import logger
from soci_pipeline.settings import Settings

_RUNTIME_FOLDER = Path("/run/soci-pipeline")
_DEFAULTS = Policy()
_PAUSE = quantity("seconds", least=1, most=3600)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="control|agent|simulate")
    control = commands.add_parser("control", help="keep groups as large as their work pools need")
    control.add_argument(
        "--group",
        action="append",
        required=True,
        metavar="POOL=GROUP",
        help="a work pool and the Auto Scaling group whose instances poll it; can be given several times",
    )
    control.add_argument("--once", action="store_true", help="look once and say what was found")
    control.add_argument("--dry-run", action="store_true", help="change nothing")
    control.add_argument("--interval", type=_PAUSE, default=30, metavar="S", help="seconds between looks (default 30)")
    agent = commands.add_parser("agent", help="look after this instance")
    agent.add_argument(
        "--folder",
        type=Path,
        default=_RUNTIME_FOLDER,
        help=f"where the notice is kept that keeps the worker from starting again (default {_RUNTIME_FOLDER})",
    )
    agent.add_argument("--interval", type=_PAUSE, default=5, metavar="S", help="seconds between looks (default 5)")
    simulate = commands.add_parser("simulate", help="waiting time and cost, simulated")
    simulate.add_argument(
        "--rate",
        action="append",
        metavar="N:HOURS",
        help="publications an hour, and for how many hours (default 1:12, 10:4 and 100:1)",
    )
    for each in (control, simulate):
        each.add_argument(
            "--runs-per-instance",
            type=whole(least=1),
            default=_DEFAULTS.runs_per_instance,
            metavar="N",
            help=f"the --limit of the workers (default {_DEFAULTS.runs_per_instance})",
        )
        each.add_argument(
            "--idle",
            type=quantity("seconds", least=0, most=7 * 86400),
            default=_DEFAULTS.idle_s,
            metavar="S",
            help=f"how many seconds capacity is kept after it was last needed (default {_DEFAULTS.idle_s:g})",
        )
    for each in (control, agent, simulate):
        as_action(each, of=parser)


def run(arguments: argparse.Namespace) -> CommandResult:
    """Control, look after this instance, or simulate."""
    if arguments.action == "agent":
        return _agent(arguments)
    policy = Policy(runs_per_instance=arguments.runs_per_instance, idle_s=arguments.idle)
    if arguments.action == "simulate":
        return _simulate(arguments, policy)
    return _control(arguments, policy)


def _control(arguments: argparse.Namespace, policy: Policy) -> CommandResult:
    from soci_pipeline.aws.auto_scaling import AutoScalingGroup, client
    from soci_pipeline.capacity.prefect_queue import PrefectQueue
    from soci_pipeline.prefect_api import PrefectApi

    names = _groups(arguments.group)
    with PrefectApi.from_environment() as api:
        aws = client()
        groups = {pool: AutoScalingGroup(name, aws) for pool, name in names.items()}
        for group in groups.values():
            # A name that is wrong is found before anything is changed.
            group.state()
        controller = Controller(PrefectQueue(api), groups, policy, dry_run=arguments.dry_run)
        while True:
            decisions = controller.step(time.monotonic())
            if arguments.once:
                return _answer(decisions)
            time.sleep(arguments.interval)


def _agent(arguments: argparse.Namespace) -> CommandResult:
    from soci_pipeline.aws.auto_scaling import GroupInstance, client
    from soci_pipeline.aws.instance_metadata import InstanceMetadata
    from soci_pipeline.capacity.agent import Agent
    from soci_pipeline.capacity.machine import Machine
    from soci_pipeline.prefect_api import PrefectApi

    if not arguments.folder.is_dir():
        raise InvalidInput(f"there is no folder {arguments.folder}", advice="Make it, or name another by --folder.")
    machine = Machine(Settings.from_environment().work.folder)
    with PrefectApi.from_environment() as api, InstanceMetadata() as metadata:
        instance = GroupInstance(metadata.instance_id(), client())
        agent = Agent(metadata, instance, machine, api, arguments.folder)
        while not agent.step():
            time.sleep(arguments.interval)
        # Started again, it would find the notice and have nothing to do.
        return CommandResult(json={"handed_on": True}, text="everything is handed on; this instance goes")


def _simulate(arguments: argparse.Namespace, policy: Policy) -> CommandResult:
    from soci_pipeline.capacity.simulated_queue import PrefectBackend
    from soci_pipeline.capacity.simulation import simulate
    from soci_pipeline.capacity.simulation_table import POOLS, as_json, as_table, scenario
    from soci_pipeline.prefect_api import PrefectApi

    scenarios = [scenario(rate, hours, policy) for rate, hours in _rates(arguments.rate)]
    with ending_on_signals(), _server() as url, PrefectApi(url) as api:
        backend = PrefectBackend(api)
        for pool in POOLS:
            backend.add_pool(pool.name)
        played = []
        for number, each in enumerate(scenarios, start=1):
            name = f"{each.publishes_per_hour:g} an hour for {each.hours:g} h"
            logger().info(
                "scenario %d of %d: %s; a simulated hour takes a minute or more", number, len(scenarios), name
            )
            played.append((each, simulate(each, backend, reached=partial(_tell, name, each.hours, time.monotonic()))))
    return CommandResult(json={"scenarios": as_json(played)}, text=as_table(played))


def _tell(name: str, hours: float, began: float, reached_s: float) -> None:
    """How far a scenario is; after its last arrival only what is still waiting and idle is left."""
    passed = time.monotonic() - began
    left = max(hours * 3600 / reached_s - 1, 0) * passed
    logger().info(
        "%s: %.1f of %g h simulated in %.0f s, about %.0f s left", name, reached_s / 3600, hours, passed, left
    )


@contextlib.contextmanager
def _server() -> Iterator[str]:
    import os
    import tempfile

    from soci_pipeline.local.footprint import footprint
    from soci_pipeline.local.prefect_server import prefect_server

    with tempfile.TemporaryDirectory(prefix="soci-simulation-") as folder, footprint(Path(folder)) as traces:
        environment = dict(os.environ) | traces.environment
        with prefect_server(Path(folder) / "prefect", env=environment) as server:
            yield server.api_url


def _answer(decisions: Sequence[Decision]) -> CommandResult:
    failed = [each.error for each in decisions if each.error is not None]
    if failed:
        raise failed[0]
    shown: list[dict[str, Any]] = []
    lines = []
    for each in decisions:
        waiting, running = (each.demand.waiting, each.demand.running) if each.demand else (0, 0)
        shown.append(
            {
                "pool": each.pool,
                "group": each.group,
                "waiting": waiting,
                "running": running,
                "capacity": each.current,
                "desired": each.desired,
            }
        )
        lines.append(
            f"{each.pool}: {waiting} waiting, {running} running; {each.group}: {each.current} -> {each.desired}"
        )
    return CommandResult(json={"pools": shown}, text="\n".join(lines))


def _groups(words: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        pool, _, group = word.partition("=")
        if not pool or not group:
            raise InvalidInput(f"--group {word!r} is not of the form POOL=GROUP", advice="As in soci-arm64=my-workers.")
        if pool in found or group in found.values():
            raise InvalidInput(f"--group {word!r}: a pool and a group belong to each other alone")
        found[pool] = group
    return found


def _rates(words: Sequence[str] | None) -> list[tuple[float, float]]:
    found = []
    for word in words or ("1:12", "10:4", "100:1"):
        rate, _, hours = word.partition(":")
        try:
            pair = (float(rate), float(hours))
        except ValueError:
            raise InvalidInput(f"--rate {word!r} is not of the form N:HOURS", advice="As in 10:4.") from None
        if not (0 < pair[0] <= 10_000 and 0 < pair[1] <= 1000):
            raise InvalidInput(
                f"--rate {word!r} is out of range",
                advice="More than 0 and up to 10,000 publications an hour, for more than 0 and up to 1,000 hours.",
            )
        found.append(pair)
    return found
