"""A publication through Prefect's REST API: looked up, started, followed and cancelled. Prefect is not imported."""
