"""Sources of images that a stack's workers build, and publications that end during the build."""

from pathlib import Path
from typing import Any

from local_stack.stack import Stack
from soci_pipeline.machine.programs import run
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import RepositoryUnknown
from tests.support import publications as seen
from tests.support.shell_root import add_shell
from tests.support.tars import noise
from tests.support.webhook import until

BIG = 11 << 20
PLAIN = "FROM scratch\nCOPY data.bin /data.bin\nCOPY note.txt /note.txt\n"
SLOW = "FROM scratch\nCOPY rootfs/ /\nARG PAUSE=0\nRUN sleep $PAUSE\n"


def source_of(stack: Stack, folder: Path, test: str, text: str, /, **parameters: Any) -> dict[str, Any]:
    """Commit a work tree with one Dockerfile and serve it; return the parameters that publish it."""
    name = "".join(part for part in test.title() if part.isalnum())[:60].lower()
    tree = folder / "tree"
    tree.mkdir()
    (tree / "Dockerfile").write_text(text)
    (tree / "data.bin").write_bytes(noise(BIG))
    (tree / "note.txt").write_text(name)
    add_shell(tree)
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    for arguments in (["init", "-q"], ["add", "--all"], [*who, "commit", "-q", "-m", "The first"]):
        run(["git", *arguments], cwd=tree)
    served = stack.git.serve(tree, name)
    defaults = {"image": f"{stack.registry}/publish/{name}", "source": served.url, "builder": "buildx"}
    return defaults | {"tags": ["latest"]} | parameters


def repository_of(parameters: dict[str, Any]) -> str:
    return str(parameters["image"]).partition("/")[2]


def tags_of(stack: Stack, parameters: dict[str, Any]) -> tuple[str, ...]:
    """Return the published tags; none if nothing was published."""
    with RegistryClient(stack.registry) as client:
        try:
            return client.tags.list(repository_of(parameters))
        except RepositoryUnknown:
            return ()


def in_mid_build(stack: Stack, parameters: dict[str, Any], pause: int) -> tuple[str, str]:
    """Start a publication; return it and its only branch once its build step sleeps for ``pause`` seconds."""
    run_id = seen.start(stack, parameters)
    until(lambda: bool(seen.sleeping(pause)), seconds=180)
    (branch,) = seen.branches(stack, run_id)
    return run_id, branch


def nothing_runs(branch: str, pause: int) -> None:
    """Wait until neither the branch nor its build step has a process."""
    until(lambda: not seen.sleeping(pause) and not seen.processes_of_run(branch), seconds=30)


def cancel_in_mid_build(stack: Stack, parameters: dict[str, Any], pause: int) -> None:
    """Cancel a publication: its branch and the build end with it."""
    run_id, branch = in_mid_build(stack, parameters, pause)
    with PrefectApi(stack.prefect_api_url) as api:
        api.cancel(run_id)
    assert seen.end_of(stack, run_id, seconds=120).kind == "CANCELLED"
    assert seen.end_of(stack, branch, seconds=120).kind == "CANCELLED"
    nothing_runs(branch, pause)
    assert tags_of(stack, parameters) == ()


def kill_in_mid_build(stack: Stack, parameters: dict[str, Any], pause: int) -> None:
    """Kill the process of a publication: its branch and the build end too."""
    run_id, branch = in_mid_build(stack, parameters, pause)
    seen.kill(seen.processes_of_run(run_id))
    assert seen.end_of(stack, run_id, seconds=120).kind == "CRASHED"
    assert seen.end_of(stack, branch, seconds=120).kind == "CANCELLED"
    nothing_runs(branch, pause)
    assert tags_of(stack, parameters) == ()
