"""Deployments of an earlier release under old names: they are listed and kept until the operator deletes them.

A webhook rule, an automation or a script may still start them, so only their operator knows when they can be deleted.
"""

from soci_pipeline.deployment_names import RENAMED
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_setup.steps import Note, Step


def renamed_steps(api: PrefectApi) -> list[Step]:
    """Return a note for each deployment that the server has under its old name; nothing is changed."""
    return [
        Step((Note("deployments", old, f"renamed to {new}; {_next(old)}"),))
        for old, new in RENAMED.items()
        if api.has_deployment(old)
    ]


def _next(old: str) -> str:
    return (
        "deploy, use the new name in webhook rules, automations and scripts, "
        f"then run `prefect deployment delete {old}`"
    )
