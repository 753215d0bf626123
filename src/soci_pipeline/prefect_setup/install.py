"""The whole set-up: everything is read first, and invalid input is rejected before anything changes.

It can be run again: what is missing is created; existing objects keep the operator's changes, apart from what the
pipeline depends on. Publications create the concurrency limits that guard tags themselves, one for each image.
"""

from pathlib import Path

from soci_pipeline.errors import InvalidInput, ToolFailed
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.errors import PrefectRefused, expected_shape
from soci_pipeline.prefect_setup.automations import automation_steps
from soci_pipeline.prefect_setup.block_types import block_type_steps, installed_block_types
from soci_pipeline.prefect_setup.declared import declared_automations, declared_pools
from soci_pipeline.prefect_setup.pools import pool_steps
from soci_pipeline.prefect_setup.renamed import renamed_steps
from soci_pipeline.prefect_setup.steps import Note, Step


def install(
    api: PrefectApi, deployments: Path, *, notify_block: str | None, worker_python: str | None
) -> tuple[Note, ...]:
    """Create what the deployments need; ``deployments`` is that folder of the checkout.

    Raises `InvalidInput` for an invalid block or file, `PrefectUnavailable` if the server stops answering, and
    `ToolFailed` if it rejects a change.
    """
    try:
        steps = _steps(api, deployments, notify_block, worker_python)
        for step in steps:
            for change in step.changes:
                change()
    except PrefectRefused as error:
        raise ToolFailed(
            f"cannot set up Prefect: {error.reason}",
            advice="Check that the server is Prefect 3.8 or later, and that the login has permission to change work "
            "pools, automations and blocks. Then run this again; what was created is kept.",
        ) from error
    return tuple(note for step in steps for note in step.notes)


def _steps(api: PrefectApi, deployments: Path, notify_block: str | None, worker_python: str | None) -> list[Step]:
    pools = declared_pools(deployments / "work-pools")
    automations = declared_automations(deployments / "automations")
    block_types = installed_block_types(deployments)
    block = None if notify_block is None else _block_id(api, notify_block)
    with expected_shape():
        return [
            *pool_steps(api, pools, worker_python=worker_python),
            *automation_steps(api, automations, notify_block=block),
            *block_type_steps(api, block_types),
            *renamed_steps(api),
        ]


def _block_id(api: PrefectApi, name: str) -> str:
    kind, _, own = name.partition("/")
    block = api.block_id(kind, own)
    if block is None:
        raise InvalidInput(
            f"the Prefect block {name} does not exist",
            advice="Create the block first, in Prefect's UI under Blocks; `prefect block ls` lists the existing ones.",
        )
    return block
