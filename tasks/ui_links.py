"""URLs of pages in Prefect's UI, if the run's settings contain its URL."""

from uuid import UUID

from prefect.settings import PREFECT_UI_URL


def run_page(run_id: UUID | str) -> str | None:
    """Return the URL of a flow run's page, which has its log."""
    return _page(f"runs/flow-run/{run_id}")


def artifacts_page() -> str | None:
    """Return the URL of the page with all artifacts, which the UI's sidebar does not link to."""
    return _page("artifacts")


def artifact_page(artifact_id: UUID | str) -> str | None:
    """Return the URL of one artifact's page."""
    return _page(f"artifacts/artifact/{artifact_id}")


def _page(path: str) -> str | None:
    base = PREFECT_UI_URL.value()
    return f"{base.rstrip('/')}/{path}" if base else None
