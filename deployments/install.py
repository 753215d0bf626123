"""Makes in Prefect what the deployments need: work pools, automations and block types. `soci-pipeline setup` runs this.

Everything can be run again: what is missing is made, what is there is left as its operator has it, apart from what the
pipeline relies on. The concurrency limits that guard tags are made by the publications themselves, one for each image.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from soci_pipeline.errors import CredentialsRefused, InvalidInput, StackError
from soci_pipeline.prefect_rest.prefect_access import check_access

FOLDER = Path(__file__).resolve().parent
NOTIFICATION = "notify-failed-publications"
NO_PYTHON = "none"


@dataclass
class Report:
    """What was made, changed or left alone; names by kind."""

    done: dict[str, dict[str, str]] = field(default_factory=dict)

    def note(self, kind: str, name: str, what: str) -> None:
        self.done.setdefault(kind, {})[name] = what
        print(f"{kind} {name}: {what}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Install everything; prints the report as JSON."""
    parser = argparse.ArgumentParser(prog="python -m deployments.install", description=__doc__)
    parser.add_argument("--notify-block", metavar="TYPE/NAME", help="the notification block for failed publications")
    parser.add_argument("--worker-python", metavar="PATH", help="the project's Python on every worker, or none")
    arguments = parser.parse_args(argv)
    try:
        report = _install(notify_block=arguments.notify_block, worker_python=arguments.worker_python)
    except (InvalidInput, CredentialsRefused, StackError) as error:
        # `soci-pipeline setup` reads this line and shows it as its own error.
        said = {"refused": int(error.exit_code), "reason": error.reason, "advice": error.advice}
        print(json.dumps(said), file=sys.stderr)
        return int(error.exit_code)
    print(json.dumps(report.done, indent=2))
    return 0


def _install(*, notify_block: str | None, worker_python: str | None) -> Report:
    report = Report()
    # What cannot be meant is found before anything is changed.
    check_access(_api_settings())
    with get_client(sync_client=True) as client:
        block = None if notify_block is None else find_block(client, notify_block)
        install_pools(client, report, worker_python=worker_python)
        install_automations(client, report, notify_block=block)
        install_blocks(client, report)
    return report


def _api_settings() -> dict[str, str]:
    """How Prefect's client would reach the server, as the variables that say so; left out are those without a value."""
    api = get_current_settings().api
    found = {
        "PREFECT_API_URL": api.url,
        "PREFECT_API_KEY": api.key and api.key.get_secret_value(),
        "PREFECT_API_AUTH_STRING": api.auth_string and api.auth_string.get_secret_value(),
        "PREFECT_API_SSL_CERT_FILE": api.ssl_cert_file,
        "PREFECT_API_TLS_INSECURE_SKIP_VERIFY": str(api.tls_insecure_skip_verify),
    }
    return {name: value for name, value in found.items() if value}


def find_block(client: SyncPrefectClient, name: str) -> UUID:
    """The id of a block, ``type/name``; raises `InvalidInput` where Prefect has none of that type and name."""
    kind, _, own = name.partition("/")
    try:
        return client.read_block_document_by_name(own, kind, include_secrets=False).id
    except ObjectNotFound as error:
        raise InvalidInput(
            f"Prefect has no block {name}",
            advice="Make that block first, in Prefect's UI under Blocks; `prefect block ls` lists those there are.",
        ) from error


def install_pools(
    client: SyncPrefectClient,
    report: Report,
    *,
    worker_python: str | None = None,
    folder: Path = FOLDER / "work-pools",
) -> None:
    """Make the work pools of ``pools.yaml``, and see to it that each hands on the environment that runs need.

    ``worker_python`` is what `with_python` takes; None leaves the command of a pool as it is.
    """
    plan = yaml.safe_load((folder / "pools.yaml").read_text())
    template = json.loads((folder / plan["template"]).read_text())
    needed = {str(name): str(value) for name, value in plan["environment"].items()}
    for pool in plan["pools"]:
        name = str(pool["name"])
        try:
            there = client.read_work_pool(name)
        except ObjectNotFound:
            client.create_work_pool(
                WorkPoolCreate(
                    name=name,
                    type="process",
                    description=pool["description"],
                    base_job_template=with_python(template, worker_python),
                    concurrency_limit=pool.get("concurrency_limit"),
                )
            )
            report.note("work_pools", name, "made")
            _note_limit(report, name, pool.get("concurrency_limit"), planned=pool.get("concurrency_limit"))
            report.note("commands", name, _command(with_python(template, worker_python)))
            continue
        changed = with_environment(there.base_job_template, needed)
        if there.type == "process":
            changed = with_python(changed, worker_python)
        if changed == there.base_job_template:
            report.note("work_pools", name, "unchanged")
        else:
            client.update_work_pool(name, WorkPoolUpdate(base_job_template=changed))
            report.note("work_pools", name, "brought up to date")
        _note_limit(report, name, there.concurrency_limit, planned=pool.get("concurrency_limit"))
        report.note("commands", name, _command(changed))


def with_environment(template: Mapping[str, Any], needed: Mapping[str, str]) -> dict[str, Any]:
    """A base job template whose default environment has the variables that are needed; values that are set stay."""
    changed: dict[str, Any] = json.loads(json.dumps(template))
    properties = changed.setdefault("variables", {}).setdefault("properties", {})
    env = properties.setdefault("env", {"type": "object", "title": "Environment Variables"})
    env["default"] = dict(needed) | (env.get("default") or {})
    changed.setdefault("job_configuration", {}).setdefault("env", "{{ env }}")
    return changed


def with_python(template: Mapping[str, Any], python: str | None) -> dict[str, Any]:
    """A base job template whose runs start with this Python at once; as it is where None, without one where ``none``.

    Without a command, Prefect starts a process that prepares the run and then becomes its engine: it imports Prefect
    twice, and a run begins seconds later. With one, the engine prepares the run itself.
    """
    changed: dict[str, Any] = json.loads(json.dumps(template))
    if python is not None:
        command = None if python == NO_PYTHON else shlex.join([python, "-m", "prefect.engine"])
        changed["variables"]["properties"]["command"]["default"] = command
    return changed


def _note_limit(report: Report, pool: str, limit: int | None, *, planned: int | None) -> None:
    if limit is not None:
        report.note("limits", pool, f"at most {limit} runs at once")
    elif planned is not None:
        # A worker that was started before makes the pool itself; or its operator took the limit away.
        command = f"prefect work-pool set-concurrency-limit {pool} {planned}"
        report.note("limits", pool, f"none; `{command}` sets that of a new pool")


def _command(template: Mapping[str, Any]) -> str:
    """What a pool's runs start with."""
    command = template.get("variables", {}).get("properties", {}).get("command", {}).get("default")
    return str(command or "the one that each worker runs with")


def install_automations(
    client: SyncPrefectClient,
    report: Report,
    *,
    notify_block: UUID | None = None,
    folder: Path = FOLDER / "automations",
) -> None:
    """Make or bring up to date the automations of the folder; the one that notifies needs a block's id to do so."""
    for path in sorted(folder.glob("*.yaml")):
        fields = yaml.safe_load(path.read_text())
        existing = client.read_automations_by_name(fields["name"])
        if path.stem == NOTIFICATION:
            # Without a new block, one that is installed keeps its own.
            block = notify_block or _notified(existing)
            if block is None:
                report.note("automations", fields["name"], "left out: no --notify-block")
                continue
            fields["actions"][0]["block_document_id"] = str(block)
        wanted = AutomationCore.model_validate(fields)
        if not existing:
            client.create_automation(wanted)
            report.note("automations", wanted.name, "made")
            continue
        # Each one is updated: Prefect allows several of one name, and each of them acts.
        outdated = [each for each in existing if not _same(each, wanted)]
        for each in outdated:
            # Whether it is switched on is the operator's choice.
            client.update_automation(each.id, wanted.model_copy(update={"enabled": each.enabled}))
        report.note("automations", wanted.name, "brought up to date" if outdated else "unchanged")


def _notified(existing: Sequence[AutomationCore]) -> UUID | None:
    """The notification block of an automation that is installed already."""
    actions = [action for each in existing for action in each.actions]
    return next((action.block_document_id for action in actions if isinstance(action, SendNotification)), None)


def install_blocks(client: SyncPrefectClient, report: Report) -> None:
    """Let the UI offer the blocks that hold AWS credentials and secrets, where prefect-aws is installed."""
    try:
        from prefect_aws import AwsCredentials, AwsSecret
    except ImportError:
        report.note("blocks", "aws", "left out: prefect-aws is not installed")
        return
    kinds: tuple[type[Block], ...] = (AwsCredentials, AwsSecret)
    for kind in kinds:
        slug = kind.get_block_type_slug()
        before = _block_type(client, slug)
        # It writes only what differs, and does not say whether anything did.
        kind.register_type_and_schema(_sync=True)  # type: ignore[call-arg]
        if before is None:
            report.note("blocks", slug, "registered")
        else:
            same = before == _block_type(client, slug)
            report.note("blocks", slug, "unchanged" if same else "brought up to date")


def _block_type(client: SyncPrefectClient, slug: str) -> tuple[dict[str, Any], UUID | None] | None:
    """What Prefect has of a type of block, with its newest schema; None where it has no such type."""
    try:
        there = client.read_block_type_by_slug(slug)
    except ObjectNotFound:
        return None
    schema = client.get_most_recent_block_schema_for_block_type(there.id)
    return there.model_dump(exclude={"created", "updated"}), None if schema is None else schema.id


def _same(there: AutomationCore, wanted: AutomationCore) -> bool:
    shape = {"description", "trigger", "actions"}
    # The server gives every trigger an id of its own.
    ids = {"trigger": {"id"}}
    return there.model_dump(include=shape, exclude=ids) == wanted.model_dump(include=shape, exclude=ids)


if __name__ == "__main__":
    sys.exit(main())
