"""The stack of `deployments/compose.yaml`, started and used as its page says."""

import json
import os
import secrets
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from local_stack.engine import Engine
from local_stack.git_server import git_server
from local_stack.ports import free_port
from local_stack.toolchain import Toolchain
from soci_pipeline.machine.programs import run
from soci_pipeline.oci.platform import Platform
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import ManifestUnknown
from tests.support.documentation import REPOSITORY, blocks, documented
from tests.support.webhook import standard_headers, until
from tests.support.worker_base import worker_base

pytestmark = [
    pytest.mark.timeout(2400),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can bootstrap a base image"),
]

NATIVE = str(Platform.native().normalised())
PORTS = ("PREFECT", "REGISTRY", "WEBHOOK", "CONTROL_HEALTH", "WORKER_HEALTH")
SERVICES = {"server", "registry", "control", "worker", "receiver"}


@dataclass(frozen=True)
class Composed:
    """A stack that is up: the environment of its commands, and where it listens."""

    env: Mapping[str, str]
    project: str

    def port(self, name: str) -> str:
        return self.env[f"SOCI_{name}_PORT"]

    @property
    def registry(self) -> str:
        return f"127.0.0.1:{self.port('REGISTRY')}"

    def compose(self, *words: str) -> str:
        file = REPOSITORY / "deployments" / "compose.yaml"
        return run(["docker", "compose", "--file", file, *words], env=self.env, timeout=600).stdout

    def left(self) -> str:
        """Containers and volumes of the project."""
        mine = f"label=com.docker.compose.project={self.project}"
        containers = run(["docker", "ps", "--all", "--quiet", "--filter", mine], env=self.env).stdout
        return containers + run(["docker", "volume", "ls", "--quiet", "--filter", mine], env=self.env).stdout


@pytest.fixture(scope="module")
def composed(
    engine: Engine,
    toolchain: Toolchain,
    tmp_path_factory: pytest.TempPathFactory,
    or_skip: Callable[[], AbstractContextManager[None]],
) -> Iterator[Composed]:
    """Everything up, by the two commands of the page, on ports that are free here."""
    folder = tmp_path_factory.mktemp("compose")
    with ExitStack() as stack:
        with or_skip():
            toolchain.ensure(["compose"])
            base = stack.enter_context(worker_base(engine, toolchain, folder))
        project, image = f"soci-{secrets.token_hex(4)}", f"soci-pipeline/worker:{secrets.token_hex(4)}"
        ports = {f"SOCI_{name}_PORT": str(free_port()) for name in PORTS}
        env = {
            **engine.env,
            **ports,
            "DOCKER_CONFIG": str(toolchain.docker_configuration()),
            "COMPOSE_PROJECT_NAME": project,
            "IMAGE": image,
            "IMAGE_ARGS": f"--network host --build-arg BASE={base}",
            "SOCI_WORKER_IMAGE": image,
            "SOCI_DOCKER_SOCKET": engine.docker_host.removeprefix("unix://"),
            "SOCI_WEBHOOK_CONFIG": str(_webhook_configuration(folder, ports)),
            # The engine of the tests has no bridge.
            "SOCI_PIPELINE_BUILD_NETWORK": "host",
        }
        made = Composed(env, project)
        stack.callback(run, ["docker", "image", "rm", "--force", image], env=env)
        stack.callback(made.compose, "down", "--volumes", "--timeout", "5")
        try:
            documented("docs/compose.md", "make image").run(REPOSITORY, env=env, timeout=1800)
        except AssertionError:
            print(made.compose("logs", "--tail", "50"))
            raise
        yield made


def _webhook_configuration(folder: Path, ports: Mapping[str, str]) -> Path:
    """The configuration of the stack with other ports, as the page says."""
    text = (REPOSITORY / "deployments" / "compose" / "webhook.yaml").read_text()
    return _written(folder / "webhook.yaml", text, ports)


def _written(path: Path, configuration: str, ports: Mapping[str, str]) -> Path:
    """Write a configuration with other ports where the receiver's user may read it."""
    for name, usual in (("PREFECT", "4200"), ("WEBHOOK", "4300"), ("REGISTRY", "5000")):
        configuration = configuration.replace(usual, ports[f"SOCI_{name}_PORT"])
    path.write_text(configuration)
    path.chmod(0o644)
    path.parent.chmod(0o755)
    return path


@contextmanager
def _example(folder: Path) -> Iterator[str]:
    """The URL of a git repository with an example that needs no base image."""
    tree = folder / "tree"
    shutil.copytree(REPOSITORY / "examples" / "buildx-static-site", tree)
    run(["git", "init", "--quiet", "--initial-branch", "main", tree])
    with git_server(folder / "git", env=os.environ) as git:
        yield git.serve_snapshot(tree, "site").url


def _listening(table: Path) -> list[tuple[str, int]]:
    """Addresses, in the kernel's hexadecimal, and ports that are listened on."""
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    pairs = [row[1].rpartition(":") for row in rows if row[3] == "0A"]
    return [(address, int(port, 16)) for address, _, port in pairs]


def test_every_service_is_healthy_and_listens_on_loopback_alone(composed: Composed) -> None:
    found = {each["Service"]: each for each in map(json.loads, composed.compose("ps", "--format", "json").splitlines())}
    assert set(found) == SERVICES
    assert {each["Health"] for each in found.values()} == {"healthy"}
    listening = [address for name in ("tcp", "tcp6") for address in _listening(Path("/proc/net", name))]
    ports = {int(composed.port(name)) for name in PORTS}
    assert sorted(each for each in listening if each[1] in ports) == [("0100007F", port) for port in sorted(ports)]


def test_the_worker_runs_as_an_ordinary_user_without_capabilities(composed: Composed) -> None:
    status = composed.compose("exec", "-T", "worker", "cat", "/proc/1/status")
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in status.splitlines())}
    assert set(fields["Uid"]) == {"10001"}
    assert fields["CapEff"] == ["0000000000000000"]


def test_a_repository_is_published_to_a_verified_tag_as_the_page_says(composed: Composed, tmp_path: Path) -> None:
    with _example(tmp_path) as url:
        done = documented(
            "docs/compose.md", "docker compose --file deployments/compose.yaml exec control soci-pipeline publish"
        ).run(
            REPOSITORY,
            replacing={
                "exec control": "exec -T control",
                "127.0.0.1:5000": composed.registry,
                "https://git.example.com/demo/site.git": url,
                "linux/amd64": NATIVE,
            },
            env=composed.env,
            timeout=600,
        )
    assert f"{composed.registry}/demo/site:latest" in done.stdout


def test_a_signed_event_starts_a_publication(composed: Composed, tmp_path: Path) -> None:
    secret = composed.compose("exec", "-T", "receiver", "cat", "/var/lib/soci-pipeline/webhook-secret").strip()
    assert len(secret) == 64
    body = {"kind": "push", "repository": "demo/event", "clone_url": "http://127.0.0.1:9/demo/event.git"}
    event = json.dumps(body | {"ref": "refs/heads/main", "commit": "0123456789" * 4}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{composed.port('WEBHOOK')}/webhooks/ci",
        data=event,
        headers={"content-type": "application/json", **standard_headers(event, time.time(), secret=secret.encode())},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 202
    with PrefectApi(f"http://127.0.0.1:{composed.port('PREFECT')}/api") as api:
        until(lambda: any("demo/event" in str(each) for each in api.list_of("/flow_runs/filter", {})), seconds=60)


@pytest.fixture
def configured(composed: Composed, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which the receiver has the configuration of docs/push-to-image.md."""
    (shown,) = [each for each in blocks(REPOSITORY / "docs" / "push-to-image.md") if each.language == "yaml"]
    # The git server of the test is on loopback.
    text = shown.script({"linux/amd64": NATIVE}) + "allow_loopback_hosts: true\n"
    path = _written(tmp_path / "webhook.yaml", text, composed.env)
    yield dict(composed.env) | {"SOCI_WEBHOOK_CONFIG": str(path)}
    composed.compose("up", "--detach", "--wait")


def test_a_push_becomes_a_verified_tag_as_the_page_says(
    composed: Composed, configured: dict[str, str], tmp_path: Path
) -> None:
    start = documented("docs/push-to-image.md", "export SOCI_WEBHOOK_CONFIG=")
    here = {"$PWD/webhook.yaml": configured["SOCI_WEBHOOK_CONFIG"]}
    start.run(REPOSITORY, replacing=here, env=configured, timeout=1800)
    receiver = f"127.0.0.1:{composed.port('WEBHOOK')}"
    direct = configured | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    with _example(tmp_path) as url, RegistryClient(composed.registry) as registry:
        replacing = {"https://git.example.com/acme/site.git": url, "127.0.0.1:4300": receiver}
        push = documented("docs/push-to-image.md", "source=https://git.example.com")
        push.run(REPOSITORY, replacing=replacing, env=direct)
        until(lambda: "main" in _tags(registry, "acme/site"), seconds=300)
    documented("docs/push-to-image.md", "docker compose --file deployments/compose.yaml exec -T control").run(
        REPOSITORY, replacing={"127.0.0.1:5000": composed.registry}, env=configured
    )


def _tags(registry: RegistryClient, repository: str) -> tuple[str, ...]:
    """The tags of a repository; none where it does not exist yet."""
    try:
        return registry.tags.list(repository)
    except ManifestUnknown:
        return ()


def test_the_commands_again_replace_nothing_that_runs_and_down_leaves_nothing(composed: Composed) -> None:
    """The last of the module, as it ends the stack."""
    before = sorted(composed.compose("ps", "--quiet").split())
    composed.compose("up", "--detach", "--wait")
    assert sorted(composed.compose("ps", "--quiet").split()) == before
    documented("docs/compose.md", "docker compose --file deployments/compose.yaml down --volumes").run(
        REPOSITORY, env=composed.env, timeout=300
    )
    assert composed.left() == ""
