"""One publication by this machine's workers, with images, source and registry on this machine too.

``python -m tests.support.published_here FOLDER`` prints the result as JSON. For machines that have only the project: it
uses the Prefect server in ``PREFECT_API_URL``, and needs no test runner.
"""

import json
import os
import sys
import time
from pathlib import Path

from local_stack.git_server import git_server
from local_stack.registry import embedded_registry
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.runs import RunState
from soci_pipeline.registry.client import RegistryClient
from tests.support.queued import tiny_images

_REPOSITORY = "shop/app"
_TAG = "v1"
_SECONDS = 240.0


def publish(folder: Path) -> dict[str, str | None]:
    """Publish; return the state of the run, its message, and the digest of the tag."""
    images = folder / "images"
    with (
        tiny_images(images) as prebuilt,
        embedded_registry(folder / "registry") as registry,
        git_server(folder / "git") as git,
    ):
        parameters = {
            "image": f"{registry}/{_REPOSITORY}",
            "tags": [_TAG],
            "source": git.serve_snapshot(images, "source").url,
            "builder": "prebuilt",
            "prebuilt": prebuilt,
        }
        with PrefectApi(os.environ["PREFECT_API_URL"]) as api:
            state = _end_of(api, api.create_run("publish-image/publish", parameters))
        with RegistryClient(registry) as client:
            tagged = client.manifests.head(_REPOSITORY, _TAG)
    return {"state": state.kind, "message": state.message, "digest": None if tagged is None else str(tagged.digest)}


def _end_of(api: PrefectApi, run: str) -> RunState:
    deadline = time.monotonic() + _SECONDS
    while not (state := api.state(run)).is_final and time.monotonic() < deadline:
        time.sleep(1)
    return state


if __name__ == "__main__":
    print(json.dumps(publish(Path(sys.argv[1]))))
