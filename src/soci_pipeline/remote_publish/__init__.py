"""A publication through Prefect's REST API: checked, started, followed and cancelled. Prefect is not imported."""
