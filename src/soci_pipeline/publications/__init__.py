"""Publications as a file: `publications.yaml` says which images are published, from what, when and by which events."""
