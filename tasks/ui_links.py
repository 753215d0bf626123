"""Pages of Prefect's UI, as far as the settings of the run say where it is."""

from uuid import UUID

from prefect.settings import PREFECT_UI_URL


def run_page(run_id: UUID | str) -> str | None:
    """The page of a flow run; its log is on it."""
    return _page(f"runs/flow-run/{run_id}")


def artifacts_page() -> str | None:
    """The page of all artifacts, which the sidebar of the UI does not link to."""
    return _page("artifacts")


def artifact_page(artifact_id: UUID | str) -> str | None:
    """The page of one artifact."""
    return _page(f"artifacts/artifact/{artifact_id}")


def _page(path: str) -> str | None:
    base = PREFECT_UI_URL.value()
    return f"{base.rstrip('/')}/{path}" if base else None
