"""Client for Prefect's REST API over plain HTTP."""
