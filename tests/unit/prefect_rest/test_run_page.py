"""The page of a flow run in Prefect's UI."""

import pytest

from soci_pipeline.prefect_rest.access import run_page

CLOUD = "https://api.prefect.cloud/api/accounts/a-1/workspaces/w-2"


@pytest.mark.parametrize(
    ("environment", "page"),
    [
        ({"PREFECT_API_URL": "http://127.0.0.1:4200/api"}, "http://127.0.0.1:4200/runs/flow-run/r"),
        (
            {"PREFECT_API_URL": "https://user:pw@prefect.example.com/api/"},
            "https://prefect.example.com/runs/flow-run/r",
        ),
        (
            {"PREFECT_API_URL": "http://server:4200/api", "PREFECT_UI_URL": "https://prefect.example.com/"},
            "https://prefect.example.com/runs/flow-run/r",
        ),
        ({"PREFECT_API_URL": CLOUD}, "https://app.prefect.cloud/account/a-1/workspace/w-2/runs/flow-run/r"),
    ],
)
def test_the_page_is_beside_the_api_at_the_ui_url_or_on_prefect_cloud(environment: dict[str, str], page: str) -> None:
    assert run_page(environment, "r") == page
