"""Blocks: their types, the schemas of these, and the documents that hold values."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from soci_pipeline.prefect_rest.connection import Connection
from soci_pipeline.prefect_rest.errors import expected_shape


class Blocks(Connection):
    """The calls about blocks."""

    def block_id(self, kind: str, name: str) -> str | None:
        """The id of a block, by the slug of its type and its name; None if there is none."""
        path = f"/block_types/slug/{quote(kind, safe='')}/block_documents/name/{quote(name, safe='')}"
        found = self.ask("GET", f"{path}?include_secrets=false", missing={})
        with expected_shape():
            return str(found["id"]) if found else None

    def block_type(self, slug: str) -> dict[str, Any] | None:
        """A type of blocks; None if there is none of that slug."""
        found = self.ask("GET", f"/block_types/slug/{quote(slug, safe='')}", missing={})
        with expected_shape():
            return dict(found) or None

    def create_block_type(self, fields: Mapping[str, Any]) -> str:
        """Make a type of blocks; returns its id."""
        made = self.ask("POST", "/block_types/", dict(fields))
        with expected_shape():
            return str(made["id"])

    def update_block_type(self, block_type: str, fields: Mapping[str, Any]) -> None:
        """Change these fields of the type with this id."""
        self.ask("PATCH", f"/block_types/{quote(block_type, safe='')}", dict(fields))

    def has_block_schema(self, checksum: str, version: str) -> bool:
        """Whether the server has the schema with this checksum in this version."""
        path = f"/block_schemas/checksum/{quote(checksum, safe='')}?version={quote(version, safe='')}"
        return bool(self.ask("GET", path, missing={}))

    def create_block_schema(self, fields: Mapping[str, Any]) -> None:
        """Add a schema to the type that its ``block_type_id`` names; the server computes the checksum."""
        self.ask("POST", "/block_schemas/", dict(fields))
