"""Publications as a file: `publications.yaml` declares images, their sources, schedules and events."""
