"""Prefect flows: wiring only. What a step does is in the library, how it is retried and shown in `tasks`."""
