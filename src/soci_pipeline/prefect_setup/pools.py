"""The work pools: missing ones are created, and each passes on the environment that runs need."""

import json
import shlex
from collections.abc import Mapping
from functools import partial
from typing import Any

from soci_pipeline.errors import InvalidInput
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.pools import WorkPool
from soci_pipeline.prefect_setup.declared import DeclaredPool, DeclaredPools
from soci_pipeline.prefect_setup.steps import Note, Step

NO_PYTHON = "none"
"""The value of ``worker_python`` that removes a known Python from the pools."""


def pool_steps(api: PrefectApi, declared: DeclaredPools, *, worker_python: str | None = None) -> list[Step]:
    """Return the steps for each work pool; `with_python` describes ``worker_python``."""
    return [_step(api, declared, pool, worker_python) for pool in declared.pools]


def _step(api: PrefectApi, declared: DeclaredPools, pool: DeclaredPool, worker_python: str | None) -> Step:
    existing = api.work_pool(pool.name)
    if existing is None:
        template = _with_python(pool.name, declared.template, worker_python)
        fields = {
            "name": pool.name,
            "type": "process",
            "description": pool.description,
            "base_job_template": template,
            "concurrency_limit": pool.concurrency_limit,
        }
        return Step(_notes(pool, "made", pool.concurrency_limit, template), (partial(api.create_work_pool, fields),))
    template = _updated_template(existing, declared.environment, worker_python)
    if template == existing.base_job_template:
        return Step(_notes(pool, "unchanged", existing.concurrency_limit, template))
    return Step(
        _notes(pool, "updated", existing.concurrency_limit, template),
        (partial(api.update_work_pool, pool.name, {"base_job_template": template}),),
    )


def _updated_template(pool: WorkPool, environment: Mapping[str, str], worker_python: str | None) -> dict[str, Any]:
    template = with_environment(pool.base_job_template, environment)
    return _with_python(pool.name, template, worker_python) if pool.type == "process" else template


def _with_python(pool: str, template: Mapping[str, Any], python: str | None) -> dict[str, Any]:
    if python is not None and "command" not in template["variables"]["properties"]:
        raise InvalidInput(
            f"--worker-python cannot be set for the work pool {pool}: its job template has no variable `command`",
            advice="Add the variable `command` to its base job template, as in Prefect's default template, or omit "
            "--worker-python.",
        )
    return with_python(template, python)


def with_environment(template: Mapping[str, Any], needed: Mapping[str, str]) -> dict[str, Any]:
    """Return a base job template whose default environment has the required variables; existing values are kept."""
    changed: dict[str, Any] = json.loads(json.dumps(template))
    properties = changed.setdefault("variables", {}).setdefault("properties", {})
    env = properties.setdefault("env", {"type": "object", "title": "Environment Variables"})
    env["default"] = dict(needed) | (env.get("default") or {})
    changed.setdefault("job_configuration", {}).setdefault("env", "{{ env }}")
    return changed


def with_python(template: Mapping[str, Any], python: str | None) -> dict[str, Any]:
    """Return a base job template whose runs start with this Python; unchanged if None, without one if ``none``.

    Without a command, Prefect starts a process that prepares the run and then becomes its engine: it imports Prefect
    twice, and a run starts seconds later. With one, the engine prepares the run itself.
    """
    changed: dict[str, Any] = json.loads(json.dumps(template))
    if python is not None:
        command = None if python == NO_PYTHON else shlex.join([python, "-m", "prefect.engine"])
        changed["variables"]["properties"]["command"]["default"] = command
    return changed


def _notes(pool: DeclaredPool, result: str, limit: int | None, template: Mapping[str, Any]) -> tuple[Note, ...]:
    limits = _limit(pool, limit)
    return (
        Note("work_pools", pool.name, result),
        *([] if limits is None else [Note("limits", pool.name, limits)]),
        Note("commands", pool.name, _command(template)),
    )


def _limit(pool: DeclaredPool, limit: int | None) -> str | None:
    if limit is not None:
        return f"at most {limit} runs at once"
    if pool.concurrency_limit is None:
        return None
    # A worker that was started earlier created the pool itself; or its operator removed the limit.
    command = f"prefect work-pool set-concurrency-limit {pool.name} {pool.concurrency_limit}"
    return f"none; `{command}` sets the limit of a new pool"


def _command(template: Mapping[str, Any]) -> str:
    """Describe what a pool's runs start with."""
    command = template.get("variables", {}).get("properties", {}).get("command", {}).get("default")
    return str(command or "the Python of each worker")
