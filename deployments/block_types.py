"""The types of blocks that hold AWS credentials and secrets, as the installed prefect-aws defines them.

`soci-pipeline setup` registers the contents of the files in ``block-types``, without importing Prefect. It calls
`documents` if the installed version of prefect-aws is not the one that they describe. ``python -m
deployments.block_types`` writes the files for the installed version.
"""

import json
from pathlib import Path
from typing import Any

from prefect.blocks.core import Block
from prefect_aws import AwsCredentials, AwsSecret

FOLDER = Path(__file__).resolve().parent / "block-types"
_TYPE = {"name", "slug", "logo_url", "documentation_url", "description", "code_example"}
_SCHEMA = {"checksum", "fields", "version"}


def documents() -> list[dict[str, Any]]:
    """Return each type with its schema for Prefect's REST API; a type follows those used by its fields."""
    kinds: tuple[type[Block], ...] = (AwsCredentials, AwsSecret)
    return [_document(kind) for kind in kinds]


def _document(kind: type[Block]) -> dict[str, Any]:
    schema = kind._to_block_schema()
    described = schema.model_dump(mode="json", include=_SCHEMA) | {"capabilities": sorted(schema.capabilities)}
    return kind._to_block_type().model_dump(mode="json", include=_TYPE) | {"block_schema": described}


def main() -> None:
    """Write the files for the installed prefect-aws."""
    for document in documents():
        (FOLDER / f"{document['slug']}.json").write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
