"""Automations: what the server does by itself when an event comes, or does not come."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from soci_pipeline.prefect_rest.connection import Connection
from soci_pipeline.prefect_rest.errors import expected_shape


class Automations(Connection):
    """The calls about automations."""

    def automations(self, name: str) -> list[dict[str, Any]]:
        """All automations of a name; Prefect allows several."""
        found = self.list_of("/automations/filter", {"automations": {"name": {"any_": [name]}}})
        with expected_shape():
            return [dict(each) for each in found]

    def create_automation(self, fields: Mapping[str, Any]) -> None:
        """Make an automation; if an answer is lost, one of its name is looked up before another attempt."""
        name = str(fields["name"])
        self.create("/automations/", dict(fields), lambda: bool(self.automations(name)))

    def update_automation(self, automation: str, fields: Mapping[str, Any]) -> None:
        """Replace the automation with this id."""
        self.ask("PUT", f"/automations/{quote(automation, safe='')}", dict(fields))
