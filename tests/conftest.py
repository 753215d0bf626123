"""The test tiers, and the fixtures that they share.

A folder is a tier and determines what its tests need: `unit` only the library, `service` Prefect and an emulated AWS,
`real` engines, registries and a browser, `deep` the same for longer. A missing tool skips its tests; with ``CI=true``
or ``--require-tools`` it fails them, so that a passing gate means that they ran.
"""

import gc
import os
import signal
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from local_stack import registry as local_registry
from local_stack.engine import Engine, running_engine
from local_stack.stack import Stack
from local_stack.toolchain import Toolchain
from soci_pipeline.errors import EngineUnavailable, ToolMissing
from soci_pipeline.oci.layout import Layout
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.server.serving import serving
from tests.support.examples import register_profiles
from tests.support.once_per_run import OncePerRun
from tests.support.registries import AT_ONCE, registry
from tests.support.stacks import deployed_database, shared_stack
from tests.support.tiers import NOT_IN_UNIT, TIERS, forbid, forbidden_import, third_of, tier_of

_LONGEST_ID = 80
_ONCE = pytest.StashKey[OncePerRun]()

# CI uses the same examples each time; developers get new ones.
register_profiles(derandomize=os.environ.get("CI") == "true")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("soci-pipeline")
    group.addoption("--third", type=int, choices=(1, 2, 3), help="of the deep tier, run only this third of the modules")
    group.addoption("--screenshots", metavar="FOLDER", help="also write the README's pictures of the UI there")
    group.addoption("--require-tools", action="store_true", help="a missing tool fails its tests instead of skipping")


def pytest_report_header(config: pytest.Config) -> str:
    third = config.getoption("--third")
    part = "" if third is None else f"; of the deep tier: third {third} of 3"
    return f"a test whose tool is missing: {_on_missing(config)}s{part}"


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background job ignores SIGINT, one under nohup SIGHUP, and so would every program that a test starts.
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)
    if config.args and {tier_of(Path(each.partition("::")[0])) for each in config.args} == {"unit"}:
        forbid(NOT_IN_UNIT)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a long value by its length and checksum, so that every process gives it the same short name."""
    if not isinstance(val, str | bytes) or len(val) <= _LONGEST_ID:
        return None
    data = val if isinstance(val, bytes) else val.encode(errors="surrogatepass")
    return f"{argname}-{len(val)}-{zlib.crc32(data):08x}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Outside the unit tier, keep a module in one process, and all tests that share the emulated AWS account.

    Modules whose tests share only what is started once per run are marked `independent`.
    """
    third = config.getoption("--third")
    if third is not None:
        kept = [item for item in items if tier_of(item.path) != "deep" or third_of(item.path) == third]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept
    for item in items:
        if tier_of(item.path) != "unit" and not item.get_closest_marker("independent"):
            account = "emulated_account" in getattr(item, "fixturenames", ())
            item.add_marker(pytest.mark.xdist_group("aws" if account else item.path.stem))
    _in_order_of_tiers(items)


def pytest_collection_finish() -> None:
    """Exclude the thousands of tests and modules from garbage collection, which took 6 % of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


def _in_order_of_tiers(items: list[pytest.Item]) -> None:
    """Sort by tier, for several tiers in one process, and within each tier run the slowest tests first.

    Prefect's client leaves threads behind that use the shared random generator, which hypothesis reports as an error of
    the test it is running; so no flow may run before the library's property tests.
    """
    items.sort(key=lambda item: (TIERS.index(tier_of(item.path)), item.get_closest_marker("first") is None))


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Not a fixture: waiting for the other processes must not count as a test's time.
    if (once := session.config.stash.get(_ONCE, None)) is not None:
        once.close()


@pytest.fixture(autouse=True)
def only_the_library() -> Iterator[None]:
    """Fail a unit test that imports what belongs to the service tier, even if it catches the error."""
    yield
    if (why := forbidden_import()) is not None:
        pytest.fail(why)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Hide the machine's credentials, AWS profile and Docker configuration from tests, unless they need real tools."""
    if tier_of(request.path) in ("real", "deep"):
        return
    for name in list(os.environ):
        if (
            name.startswith(("AWS_", "DOCKER_", "CONTAINERD_", "SOCI_PIPELINE_", "PREFECT_"))
            and name != "AWS_CA_BUNDLE"
        ):
            monkeypatch.delenv(name)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An empty layout for images."""
    return Layout.create(tmp_path / "layout")


@pytest.fixture
def referrers_api() -> bool:
    """Whether the registry of `client` has the referrers API; modules override it to test both kinds."""
    return True


@pytest.fixture
def client(tmp_path: Path, referrers_api: bool) -> Iterator[RegistryClient]:
    """A client for an empty embedded registry, which keeps its content in ``tmp_path / "registry"``."""
    with registry(tmp_path / "registry", referrers=referrers_api, settings=AT_ONCE) as made:
        yield made


@pytest.fixture
def embedded_registry(tmp_path: Path) -> Iterator[str]:
    """The address of a separate embedded registry."""
    with serving(tmp_path / "registry") as address:
        yield address


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
    """For fixtures: if a tool is missing, the block skips the test, or fails it if tools are required."""
    return lambda: _or_skip(request.config)


@pytest.fixture(scope="session")
def once_per_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OncePerRun:
    """What all pytest processes of this run share."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return request.config.stash.setdefault(_ONCE, OncePerRun(folder))


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    """The unpacked tools, shared with `make demo`: in the repository's folder, fetched only once."""
    return Toolchain()


@pytest.fixture(scope="session")
def engine(once_per_run: OncePerRun, toolchain: Toolchain, request: pytest.FixtureRequest) -> Engine:
    """A Docker engine for the whole run: the machine's own, else a private one."""
    with _or_skip(request.config):
        return once_per_run.get("engine", partial(running_engine, toolchain=toolchain))


@pytest.fixture(scope="session")
def docker_registry(once_per_run: OncePerRun, toolchain: Toolchain, request: pytest.FixtureRequest) -> str:
    """The address of Debian's docker-registry, empty at the start of the run."""
    with _or_skip(request.config):
        return once_per_run.get("docker-registry", partial(local_registry.docker_registry, toolchain=toolchain))


@pytest.fixture(scope="session")
def prepared(once_per_run: OncePerRun) -> Path:
    """A Prefect database with pools and deployed flows, from which stacks start."""
    return once_per_run.get("database", deployed_database)


@pytest.fixture(scope="session")
def stack(
    once_per_run: OncePerRun, engine: Engine, toolchain: Toolchain, prepared: Path, request: pytest.FixtureRequest
) -> Stack:
    """A complete local stack for the run; workers do not see each other's folders, and have ctr and soci on their PATH.

    A test that kills a worker starts its own worker in a separate pool.
    """
    with _or_skip(request.config):
        return once_per_run.get("stack", partial(shared_stack, engine=engine, toolchain=toolchain, prepared=prepared))
