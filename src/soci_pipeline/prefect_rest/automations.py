"""Automations: actions that the server takes when an event occurs or fails to occur."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from soci_pipeline.prefect_rest.connection import Connection
from soci_pipeline.prefect_rest.errors import expected_shape


class Automations(Connection):
    """API calls for automations."""

    def automations(self, name: str) -> list[dict[str, Any]]:
        """Return all automations with a name; Prefect allows several."""
        found = self.list_of("/automations/filter", {"automations": {"name": {"any_": [name]}}})
        with expected_shape():
            return [dict(each) for each in found]

    def create_automation(self, fields: Mapping[str, Any]) -> None:
        """Make an automation; if an answer is lost, one of its name is looked up before another attempt."""
        name = str(fields["name"])
        self.create("/automations/", dict(fields), lambda: bool(self.automations(name)))

    def update_automation(self, automation: str, fields: Mapping[str, Any]) -> None:
        """Replace the automation with this ID."""
        self.ask("PUT", f"/automations/{quote(automation, safe='')}", dict(fields))
