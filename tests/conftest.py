"""The tiers, and the real things that the real tier shares.

``--real`` adds the tests that start engines, registries and Prefect. A tool that this machine cannot have skips its
tests; with ``CI=true`` or ``--require-tools`` it fails them, so that a green gate means that they ran.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import hypothesis
import pytest

from soci_pipeline.errors import EngineUnavailable, ToolMissing
from soci_pipeline.local import registry as local_registry
from soci_pipeline.local.engine import Engine, running_engine
from soci_pipeline.local.stack import Stack, local_stack
from soci_pipeline.local.toolchain import Toolchain
from soci_pipeline.registry.server.serving import serving

REPOSITORY = Path(__file__).resolve().parents[1]

# No test is timed: a busy machine is no defect. The gate tries the same examples each time; people get new ones.
hypothesis.settings.register_profile(
    "untimed",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    database=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("soci-pipeline")
    group.addoption("--real", action="store_true", help="also run the tests with real engines, registries and Prefect")
    group.addoption("--screenshots", metavar="FOLDER", help="also write the README's pictures of the UI there")
    group.addoption("--require-tools", action="store_true", help="a tool that cannot be had is a failure, not a skip")


def pytest_report_header(config: pytest.Config) -> str:
    return f"real tier: {'on' if config.getoption('--real') else 'off'}, missing tools: {_on_missing(config)}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=_ring)
    if config.getoption("--real"):
        return
    skip = pytest.mark.skip(reason="needs --real")
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(skip)


def _ring(item: pytest.Item) -> int:
    """From the library outwards, and what is cheap to find first.

    Prefect's client leaves threads behind that draw from the shared random generator, which hypothesis holds against
    the test that it is drawing for; so no flow may have run before the library's property tests.
    """
    if item.get_closest_marker("real"):
        return 2
    return 0 if (REPOSITORY / "tests" / "unit") in item.path.parents else 1


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """No test sees the machine's credentials, AWS profile or Docker configuration."""
    if request.node.get_closest_marker("real"):
        return
    for name in list(os.environ):
        if (
            name.startswith(("AWS_", "DOCKER_", "CONTAINERD_", "SOCI_PIPELINE_", "PREFECT_"))
            and name != "AWS_CA_BUNDLE"
        ):
            monkeypatch.delenv(name)


@contextmanager
def _or_skip(config: pytest.Config) -> Iterator[None]:
    try:
        yield
    except (ToolMissing, EngineUnavailable) as error:
        if _on_missing(config) == "fail":
            raise
        pytest.skip(str(error))


def _on_missing(config: pytest.Config) -> str:
    return "fail" if config.getoption("--require-tools") or os.environ.get("CI") == "true" else "skip"


@pytest.fixture(scope="session")
def or_skip(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[None]]:
    """For fixtures that need a tool: within the block its lack is a skip, or a failure where tools are required."""
    return lambda: _or_skip(request.config)


@pytest.fixture(scope="session")
def toolchain(request: pytest.FixtureRequest) -> Toolchain:
    """The unpacked tools, shared with `make demo`: under the repository, quick the second time."""
    return Toolchain()


@pytest.fixture(scope="session")
def engine(
    request: pytest.FixtureRequest, toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """A Docker engine for the whole session: the machine's own, else a private one."""
    with ExitStack() as stack:
        with _or_skip(request.config):
            started = stack.enter_context(running_engine(tmp_path_factory.mktemp("engine"), toolchain=toolchain))
        yield started


@pytest.fixture(scope="session")
def docker_registry(
    request: pytest.FixtureRequest, toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of Debian's docker-registry, empty at the session's start."""
    with ExitStack() as stack:
        with _or_skip(request.config):
            folder = tmp_path_factory.mktemp("docker-registry")
            address = stack.enter_context(local_registry.docker_registry(folder, toolchain=toolchain))
        yield address


@pytest.fixture
def embedded_registry(tmp_path: Path) -> Iterator[str]:
    """The address of an embedded registry of the test's own."""
    with serving(tmp_path / "registry") as address:
        yield address


@pytest.fixture(scope="session")
def stack(
    request: pytest.FixtureRequest, engine: Engine, toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A whole local stack for the session; each worker sees nothing of the others' folders."""
    with ExitStack() as block:
        with _or_skip(request.config):
            folder = tmp_path_factory.mktemp("stack")
            started = block.enter_context(local_stack(folder, engine=engine, toolchain=toolchain, isolated=True))
        yield started
