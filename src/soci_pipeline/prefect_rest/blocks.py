"""Blocks: block types, block schemas, and the block documents that hold values."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from soci_pipeline.prefect_rest.connection import Connection
from soci_pipeline.prefect_rest.errors import expected_shape


class Blocks(Connection):
    """API calls for blocks."""

    def block_id(self, kind: str, name: str) -> str | None:
        """Return the ID of a block, by its type's slug and its name; None if it does not exist."""
        path = f"/block_types/slug/{quote(kind, safe='')}/block_documents/name/{quote(name, safe='')}"
        found = self.ask("GET", f"{path}?include_secrets=false", missing={})
        with expected_shape():
            return str(found["id"]) if found else None

    def block_type(self, slug: str) -> dict[str, Any] | None:
        """Return the block type with this slug; None if it does not exist."""
        found = self.ask("GET", f"/block_types/slug/{quote(slug, safe='')}", missing={})
        with expected_shape():
            return dict(found) or None

    def create_block_type(self, fields: Mapping[str, Any]) -> str:
        """Create a block type; return its ID."""
        made = self.ask("POST", "/block_types/", dict(fields))
        with expected_shape():
            return str(made["id"])

    def update_block_type(self, block_type: str, fields: Mapping[str, Any]) -> None:
        """Update these fields of the block type with this ID."""
        self.ask("PATCH", f"/block_types/{quote(block_type, safe='')}", dict(fields))

    def has_block_schema(self, checksum: str, version: str) -> bool:
        """Whether the server has the schema with this checksum and version."""
        path = f"/block_schemas/checksum/{quote(checksum, safe='')}?version={quote(version, safe='')}"
        return bool(self.ask("GET", path, missing={}))

    def create_block_schema(self, fields: Mapping[str, Any]) -> None:
        """Create a schema of the block type in ``block_type_id``; the server computes the checksum."""
        self.ask("POST", "/block_schemas/", dict(fields))
