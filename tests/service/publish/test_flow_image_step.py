"""The build step for flow images, called by `prefect deploy` with the file that the documentation shows."""

import json
import sys
from pathlib import Path

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate

from local_stack.prefect_server import PrefectServer
from soci_pipeline.machine.programs import run
from soci_pipeline.registry.client import RegistryClient
from tests.support.archives import oci_archive
from tests.support.documentation import REPOSITORY, blocks
from tests.support.images import AMD64, image_layout

POOL = "my-ecs-pool"
ECS = REPOSITORY / "deployments" / "work-pools" / "ecs-amd64.json"


def test_the_documented_file_publishes_the_image_and_deploys_with_it(
    prefect: PrefectServer, client: RegistryClient, tmp_path: Path
) -> None:
    (shown,) = [block.text for block in blocks(REPOSITORY / "docs" / "flow-images.md") if block.language == "yaml"]
    document = yaml.safe_load(shown)
    (step,) = document["build"]
    (given,) = step.values()
    name = f"{client.registry}/team/flows"
    # An image that was built before: this tier has no engine.
    given |= {"image_name": name, "tag": "v1", "builder": "prebuilt", "prebuilt": "{platform}.tar"}
    project = tmp_path / "project"
    project.mkdir()
    (project / "prefect.yaml").write_text(yaml.safe_dump(document))
    (project / "hello.py").write_text("from prefect import flow\n\n\n@flow\ndef hello():\n    return 'Hello'\n")
    oci_archive(project / f"{AMD64.slug}.tar", image_layout(tmp_path / "built", AMD64))
    template = json.loads(ECS.read_text())
    with get_client(sync_client=True) as api:
        api.create_work_pool(WorkPoolCreate(name=POOL, type="ecs", base_job_template=template))

    env = {**prefect.env, "SOCI_PIPELINE_WORK_FOLDER": str(tmp_path / "work")}
    done = run([sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"], env=env, cwd=project, timeout=180)

    found = client.manifests.head("team/flows", "v1")
    assert found is not None, done.stdout
    with get_client(sync_client=True) as api:
        deployment = api.read_deployment_by_name("hello/hello")
    assert deployment.job_variables["image"] == f"{name}:v1"
