"""Deployments of an earlier release under names that have changed: they are named, and stay until they are deleted.

A webhook rule, an automation or a script may start them still, so only their operator knows when they can go.
"""

from soci_pipeline.deployment_names import RENAMED
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_setup.steps import Note, Step


def renamed_steps(api: PrefectApi) -> list[Step]:
    """A note for each deployment that the server has under its old name; nothing is changed."""
    return [
        Step((Note("deployments", old, f"renamed to {new}; {_next(old)}"),))
        for old, new in RENAMED.items()
        if api.has_deployment(old)
    ]


def _next(old: str) -> str:
    return (
        "deploy, put the new name into webhook rules, automations and scripts, "
        f"then run `prefect deployment delete {old}`"
    )
