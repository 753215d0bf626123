"""The build cache in a registry, with engines that know nothing: what the first one built, the second need not."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local_stack.engine import private_engine
from local_stack.toolchain import Toolchain
from soci_pipeline.git import source
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish import branch
from soci_pipeline.publish.branch import Branch
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.server import ServerSettings, serving
from soci_pipeline.retention.prune import read_repository
from soci_pipeline.settings import Settings
from tests.support.git_repositories import Repository, repository
from tests.support.images import AMD64, ARM64
from tests.support.registries import CREDENTIALS, LOGIN
from tests.support.shell_root import add_shell

pytestmark = pytest.mark.timeout(300)

# A RUN step in each stage, which says that it runs; what changes is copied before the second one.
DOCKERFILE = """
FROM scratch AS tools
COPY rootfs/ /
RUN mkdir -p /made && touch /made/tools && echo ran: tools

FROM tools
COPY page.html /page.html
RUN touch /made/page && echo ran: page
"""
REPOSITORY = "shop/web"
_RUN_STEPS = frozenset({"tools", "page"})
# What a step prints follows its number and the seconds that it has run for.
_RAN = re.compile(r"#\d+ [\d.]+ ran: (\w+)\Z")


@pytest.fixture
def application(tmp_path: Path) -> Repository:
    made = repository(tmp_path / "app", {"Dockerfile": DOCKERFILE, "page.html": "one"})
    add_shell(made.path)
    made.commit({"rootfs/.keep": ""})
    return made


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A registry that wants a login, which is in this process's environment alone."""
    with serving(tmp_path / "registry", settings=ServerSettings(login=LOGIN)) as address:
        monkeypatch.setenv("SOCI_PIPELINE_REGISTRY", address)
        monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_USERNAME", "robot")
        monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_PASSWORD", "opensesame")
        yield address


class Builds:
    """Builds of one application, each by an engine that has just been started with an empty folder."""

    def __init__(
        self,
        folder: Path,
        address: str,
        application: Repository,
        toolchain: Toolchain,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        self._folder, self._address, self._application = folder, address, application
        self._toolchain, self._monkeypatch, self._caplog = toolchain, monkeypatch, caplog
        self._count = 0

    @contextmanager
    def fresh_engine(self) -> Iterator[None]:
        self._count += 1
        folder = self._folder / f"engine-{self._count}"
        with private_engine(folder, toolchain=self._toolchain) as engine, self._monkeypatch.context() as patched:
            for name, value in engine.env.items():
                patched.setenv(name, value)
            yield

    def cached_steps(self, platform: Platform, ref: str = "main", **parameters: object) -> int:
        """Build, and count the RUN steps that BuildKit did not run."""
        self._count += 1
        request = PublishRequest.check(
            {
                "image": f"{self._address}/{REPOSITORY}",
                "source": str(self._application.path),
                "builder": "buildx",
                "cache": "registry",
                **parameters,
            }
        )
        found = source.resolve(request.source, ref)
        folder = self._folder / f"run-{self._count}"
        folder.mkdir()
        settings = Settings.from_environment(
            {"SOCI_PIPELINE_WORK_FOLDER": str(folder / "work"), "SOCI_PIPELINE_BUILD_NETWORK": "host"}
        )
        work = Branch(request.branch(platform, found), folder, settings)
        self._caplog.clear()
        with self._caplog.at_level(logging.INFO):
            branch.build(work, branch.check_out(work))
        assert "opensesame" not in self._caplog.text
        matches = (_RAN.match(record.getMessage()) for record in self._caplog.records)
        return len(_RUN_STEPS - {each[1] for each in matches if each})

    def warnings(self) -> list[str]:
        return [record.getMessage() for record in self._caplog.records if record.levelname == "WARNING"]


@pytest.fixture
def builds(
    tmp_path: Path,
    address: str,
    application: Repository,
    toolchain: Toolchain,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Builds:
    return Builds(tmp_path, address, application, toolchain, monkeypatch, caplog)


def test_a_second_engine_builds_a_changed_source_with_the_first_ones_cache_for_each_platform(
    builds: Builds, address: str, application: Repository
) -> None:
    # The steps run this machine's own programs under both names: what is shown is whose cache counts.
    with builds.fresh_engine():
        assert builds.cached_steps(AMD64) == 0
        assert builds.warnings() == []
    application.commit({"page.html": "two"})

    with builds.fresh_engine():
        # Nothing was cached for the other platform yet, and what the first one has is not taken for it.
        assert builds.cached_steps(ARM64) == 0
    with builds.fresh_engine():
        assert builds.cached_steps(AMD64) == 1
    with builds.fresh_engine():
        assert builds.cached_steps(ARM64) == 2

    with RegistryClient(address, credentials=CREDENTIALS) as client:
        graph = read_repository(client, REPOSITORY)
    assert sorted(tag.rpartition("-")[0] for tag in graph.tags) == ["cache-linux-amd64-main", "cache-linux-arm64-main"]
    assert all(node.is_cache and node.created for node in graph.nodes.values())


def test_a_new_branch_starts_with_the_default_branchs_cache_and_never_writes_there(
    builds: Builds, address: str, application: Repository
) -> None:
    here = Platform.native()
    with builds.fresh_engine():
        builds.cached_steps(here)
    with RegistryClient(address, credentials=CREDENTIALS) as client:
        before = read_repository(client, REPOSITORY, ages=False).tags
    application.git("checkout", "--quiet", "-b", "feature/page")
    application.commit({"page.html": "two"})
    # What is checked out there is the default branch.
    application.git("checkout", "--quiet", "main")

    with builds.fresh_engine():
        assert builds.cached_steps(here, "feature/page") == 1

    with RegistryClient(address, credentials=CREDENTIALS) as client:
        after = read_repository(client, REPOSITORY, ages=False).tags
    assert before.items() < after.items()
    (new,) = after.keys() - before.keys()
    assert new.startswith(f"cache-{here.slug}-feature-page-")


def test_a_cache_that_cannot_be_stored_is_a_warning_and_the_image_is_built(builds: Builds) -> None:
    with builds.fresh_engine():
        elsewhere = "127.0.0.1:1/{image}:{platform}-{ref}"
        assert builds.cached_steps(Platform.native(), cache_reference=elsewhere) == 0
    (warning,) = builds.warnings()
    assert warning.startswith("the build cache was not stored, so the next build starts without it: ")
    assert "connection refused" in warning
