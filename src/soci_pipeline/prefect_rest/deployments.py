"""Create, update and delete deployments and their schedules."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from soci_pipeline.prefect_rest.connection import Connection
from soci_pipeline.prefect_rest.errors import PrefectRefused, expected_shape

_PAGE = 200
_MOST = 10_000


class Deployments(Connection):
    """API calls for deployments."""

    def deployments_of(self, flow: str) -> dict[str, dict[str, Any]]:
        """Return all deployments of a flow by name; raise `PrefectRefused` for more than 10,000 of them."""
        found: dict[str, dict[str, Any]] = {}
        offset, complete = 0, False
        while not complete:
            query = {"flows": {"name": {"any_": [flow]}}, "sort": "NAME_ASC", "offset": offset, "limit": _PAGE}
            page, before = self.list_of("/deployments/filter", query), len(found)
            with expected_shape():
                found.update({str(each["name"]): dict(each) for each in page})
            if len(found) > _MOST:
                raise PrefectRefused(f"Prefect lists more than {_MOST} deployments of {flow}")
            # A server that ignores the offset would return the same page forever.
            offset, complete = offset + _PAGE, len(page) < _PAGE or len(found) == before
        return found

    def create_deployment(self, fields: Mapping[str, Any]) -> None:
        """Create a deployment."""
        self.ask("POST", "/deployments/", dict(fields))

    def update_deployment(self, deployment: str, fields: Mapping[str, Any]) -> None:
        """Update these fields of the deployment with this ID."""
        self.ask("PATCH", _path(deployment), dict(fields))

    def delete_deployment(self, deployment: str) -> None:
        """Delete the deployment with this ID; it is not an error if it does not exist."""
        self.ask("DELETE", _path(deployment), missing={})

    def create_schedule(self, deployment: str, fields: Mapping[str, Any]) -> None:
        """Add a schedule to a deployment."""
        self.ask("POST", f"{_path(deployment)}/schedules", [dict(fields)])

    def update_schedule(self, deployment: str, schedule: str, fields: Mapping[str, Any]) -> None:
        """Update a schedule. Prefect clears the parameters of a schedule unless ``fields`` contains them."""
        self.ask("PATCH", f"{_path(deployment)}/schedules/{quote(schedule, safe='')}", dict(fields))

    def delete_schedule(self, deployment: str, schedule: str) -> None:
        """Delete a schedule; it is not an error if it does not exist."""
        self.ask("DELETE", f"{_path(deployment)}/schedules/{quote(schedule, safe='')}", missing={})


def _path(deployment: str) -> str:
    return f"/deployments/{quote(deployment, safe='')}"
