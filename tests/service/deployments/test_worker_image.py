"""The worker's Dockerfile: what the pipeline would build, as far as that shows without a registry for its base."""

import json
import re
from pathlib import Path

from soci_pipeline.builders.request import BuildRequest
from tests.support.images import AMD64

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = "deployments/worker-image/Dockerfile"


def _instructions() -> list[tuple[str, str]]:
    """Instruction and arguments, with the lines that a backslash continues."""
    lines = [line for line in (ROOT / DOCKERFILE).read_text().splitlines() if not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(each.split(maxsplit=1)[0], each.split(maxsplit=1)[1]) for each in whole.splitlines() if each.strip()]


def _all(kind: str) -> list[str]:
    return [arguments for instruction, arguments in _instructions() if instruction == kind]


def test_it_is_built_from_the_repository_as_its_readme_says() -> None:
    asked = BuildRequest(source=ROOT, dockerfile=DOCKERFILE, platform=AMD64, source_date_epoch=1)
    asked.check()
    assert f"--dockerfile {DOCKERFILE}\n" in (ROOT / "deployments/worker-image/README.md").read_text()


def test_everything_that_it_copies_is_there() -> None:
    copied = [source for arguments in _all("COPY") for source in arguments.split()[:-1]]
    assert {"src", "tasks", "flows", "prefect.yaml"} <= set(copied)
    assert not [source for source in copied if not (ROOT / source).exists()]


def test_what_pip_installs_is_pinned_by_the_lock_or_is_the_project() -> None:
    installs = re.findall(r"pip install ([^&]*)", " && ".join(_all("RUN")))
    assert len(installs) == 2
    assert all("--require-hashes" in each or "--no-index" in each for each in installs)
    assert not _all("ADD")


def test_it_runs_as_an_ordinary_user_and_finds_the_flows_in_the_image() -> None:
    assert _all("USER")[-1] == "10001"
    environment = " ".join(_all("ENV"))
    assert "SOCI_PIPELINE_HOME=/opt/soci-pipeline" in environment
    assert _all("WORKDIR")[0] == "/opt/soci-pipeline"
    assert json.loads(_all("ENTRYPOINT")[0])[:3] == ["prefect", "worker", "start"]
