"""The names of this project's deployments, as `prefect.yaml` declares them, and those of earlier releases."""

PUBLISH = "publish-image/publish"
"""The deployment that builds, indexes and publishes an image."""

RENAMED = {
    "publish-image/default": PUBLISH,
    "verify-image/default": "verify-image/verify",
    "index-image/default": "index-image/index",
    "prune-repository/default": "prune-repository/prune",
}
"""Names of deployments in earlier versions, and their current names."""
