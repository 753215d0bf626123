"""The builders with a real engine."""

import gzip
import io
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_stack.engine import Engine
from soci_pipeline.builders.builder import BuilderName, choose
from soci_pipeline.builders.errors import NotSupportedByBuilder
from soci_pipeline.builders.import_image import import_image
from soci_pipeline.builders.request import BuildRequest
from soci_pipeline.errors import BuildFailed, EngineUnavailable
from soci_pipeline.machine.programs import run
from soci_pipeline.machine.reaper import reap
from soci_pipeline.machine.working_folder import BUILDER_RECORD, LOCK, PREFIX
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.oci.media_types import OCI_LAYER_GZIP, OCI_MANIFEST
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.leftovers import REMOVERS
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.push import push_graph
from tests.support.archives import oci_archive
from tests.support.buildkit_proxy import buildkit_address
from tests.support.file_server import serving_files
from tests.support.images import gzip_layer, image_layout, only_manifest
from tests.support.shell_root import add_shell
from tests.support.tars import noise

pytestmark = pytest.mark.timeout(300)

EPOCH = 1_700_000_000
HERE = Platform.native()
DOCKERFILE = """
FROM scratch AS base
COPY rootfs/ /
RUN mkdir -p /made && date > /made/stamp && touch /made/file

FROM base AS app
ARG WHO=nobody
COPY data.bin /data.bin
LABEL who=$WHO

FROM base AS other
LABEL who=other
"""


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("context")
    add_shell(folder)
    (folder / "data.bin").write_bytes(noise(300_000))
    (folder / "Dockerfile").write_text(DOCKERFILE)
    return folder


@pytest.fixture
def tree(context: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A source of a test's own: another Dockerfile beside the same files."""

    def make(dockerfile: str) -> Path:
        folder = tmp_path / "source"
        folder.mkdir()
        run(["cp", "-r", f"{context}/.", folder])
        (folder / "Dockerfile").write_text(dockerfile)
        return folder

    return make


def request(source: Path, **fields: Any) -> BuildRequest:
    values = {"source": source, "platform": HERE, "source_date_epoch": EPOCH, "network": "host", **fields}
    return BuildRequest(**values)


def built(name: str, asked: BuildRequest, folder: Path, engine: Engine) -> Layout:
    builder = choose(name, asked, env=engine.env)
    path = builder.build(asked, folder / "built")
    return import_image(path, folder / "image", platform=asked.platform, compress=builder.compresses)


def contents(layout: Layout) -> dict[str, tarfile.TarInfo]:
    """Every entry of every layer, by name."""
    found: dict[str, tarfile.TarInfo] = {}
    for layer in only_manifest(layout).layers:
        data = gzip.decompress(layout.blob_path(layer.digest).read_bytes())
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            found |= {member.name: member for member in archive}
    return found


def config(layout: Layout) -> str:
    return layout.read(only_manifest(layout).config).decode()


def forget_the_cache(engine: Engine) -> None:
    run(["docker", "builder", "prune", "--all", "--force"], env=engine.env)
    run(["docker", "image", "prune", "--force"], env=engine.env)


@pytest.fixture
def still_dockerfile() -> str:
    """Without the step that writes the time of day into a file, which no builder can undo."""
    return DOCKERFILE.replace("date > /made/stamp && ", "")


def test_buildx_gives_the_same_digest_for_the_same_commit_without_any_cache(
    engine: Engine, tree: Callable[[str], Path], tmp_path: Path, still_dockerfile: str
) -> None:
    if not engine.containerd_image_store:
        pytest.skip("this engine's own builder cannot export OCI archives")
    asked = request(tree(still_dockerfile))
    forget_the_cache(engine)
    first = built("buildx", asked, tmp_path / "1", engine)
    forget_the_cache(engine)
    time.sleep(1.1)
    second = built("buildx", asked, tmp_path / "2", engine)
    assert second.root() == first.root()
    assert first.root().media_type == OCI_MANIFEST
    assert max(entry.mtime for entry in contents(first).values()) <= EPOCH
    assert '"created":"2023-11-14T22:13:20Z"' in config(first)


def test_docker_gives_another_digest_for_the_same_commit_since_it_has_no_such_switch(
    engine: Engine, tree: Callable[[str], Path], tmp_path: Path, still_dockerfile: str
) -> None:
    asked = request(tree(still_dockerfile))
    forget_the_cache(engine)
    first = built("docker", asked, tmp_path / "1", engine)
    forget_the_cache(engine)
    time.sleep(1.1)
    second = built("docker", asked, tmp_path / "2", engine)
    assert second.root() != first.root()
    assert max(entry.mtime for entry in contents(first).values()) > EPOCH


def test_docker_with_its_cache_repeats_every_layer(engine: Engine, context: Path, tmp_path: Path) -> None:
    first = built("docker", request(context), tmp_path / "1", engine)
    second = built("docker", request(context), tmp_path / "2", engine)
    assert only_manifest(second).layers == only_manifest(first).layers


def test_docker_leaves_a_compressed_image_and_nothing_in_the_engine(
    engine: Engine, context: Path, tmp_path: Path
) -> None:
    before = run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"], env=engine.env).stdout
    layout = built("docker", request(context, target="app", build_args={"WHO": "me"}), tmp_path, engine)
    manifest = only_manifest(layout)
    assert {layer.media_type for layer in manifest.layers} == {OCI_LAYER_GZIP}
    assert manifest.media_type == OCI_MANIFEST
    assert '"who":"me"' in config(layout)
    assert "soci-pipeline-build" not in before
    after = run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"], env=engine.env).stdout
    assert "soci-pipeline-build" not in after


@pytest.mark.parametrize("name", ["buildx", "docker"])
def test_target_and_build_arguments_arrive(engine: Engine, context: Path, tmp_path: Path, name: str) -> None:
    app = built(name, request(context, target="app", build_args={"WHO": "somebody else"}), tmp_path / "1", engine)
    other = built(name, request(context, target="other"), tmp_path / "2", engine)
    assert '"who":"somebody else"' in config(app)
    assert '"who":"other"' in config(other)
    assert "data.bin" in contents(app)
    assert "data.bin" not in contents(other)


@pytest.mark.parametrize("name", ["buildx", "docker"])
def test_a_dockerfile_may_lie_above_its_context(
    engine: Engine, tree: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    source = tree("FROM scratch\nCOPY only.txt /\n")
    (source / "app").mkdir()
    (source / "app" / "only.txt").write_text("here")
    asked = request(source, context="app", dockerfile="../Dockerfile")
    assert list(contents(built(name, asked, tmp_path, engine))) == ["only.txt"]


def test_a_secret_reaches_its_step_and_neither_the_image_nor_the_log(
    engine: Engine, tree: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "a,token"
    secret.write_text("s3cr3t-value")
    step = "RUN --mount=type=secret,id=token mkdir -p /x && cat /run/secrets/token | wc -c > /x/length\n"
    source = tree(f"FROM scratch\nCOPY rootfs/ /\n{step}")
    with caplog.at_level("DEBUG"):
        layout = built("buildx", request(source, secrets={"token": secret}), tmp_path / "out", engine)
    entries = contents(layout)
    assert entries["x/length"].size == len("12\n")
    stored = b"".join(path.read_bytes() for path in (layout.path / "blobs").rglob("*") if path.is_file())
    assert b"s3cr3t-value" not in stored
    assert "s3cr3t-value" not in caplog.text


def test_attestations_come_on_request_only(engine: Engine, context: Path, tmp_path: Path) -> None:
    # The scanner of the SBOM is an image that the engine would have to pull.
    layout = built("buildx", request(context, attestations=True, sbom=False), tmp_path, engine)
    index = layout.read_document(layout.root())
    assert isinstance(index, ImageIndex)
    image, attestation = index.manifests
    assert attestation.annotations["vnd.docker.reference.digest"] == str(image.digest)
    assert str(attestation.platform) == "unknown/unknown"


@pytest.mark.parametrize("name", ["buildx", "docker"])
def test_a_failing_step_is_shown_with_its_last_lines(
    engine: Engine, tree: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    source = tree("FROM scratch\nCOPY rootfs/ /\nRUN cat /no/such/file\n")
    with pytest.raises(BuildFailed, match="No such file or directory"):
        built(name, request(source), tmp_path, engine)


@pytest.mark.parametrize("name", ["auto", "buildx", "docker"])
def test_an_engine_that_does_not_run_is_named(engine: Engine, context: Path, tmp_path: Path, name: str) -> None:
    env = {**engine.env, "DOCKER_HOST": f"unix://{tmp_path}/nothing.sock"}
    with pytest.raises(EngineUnavailable):
        choose(name, request(context), env=env)


def test_auto_takes_what_the_engine_can_do(engine: Engine, context: Path) -> None:
    assert choose("auto", request(context), env=engine.env).name is BuilderName.BUILDX
    without_client = {**engine.env, "PATH": os.defpath + "x"}
    assert choose("auto", request(context), env=without_client).name is BuilderName.DOCKER


@pytest.mark.parametrize("name", ["buildx", "docker"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_cancelling_ends_the_build_in_the_engine_too(
    engine: Engine, tree: Callable[[str], Path], tmp_path: Path, name: str, number: signal.Signals
) -> None:
    # A duration that no other process sleeps for.
    seconds = f"{os.getpid()}.{number.value}{len(name)}"
    source = tree(f"FROM scratch\nCOPY rootfs/ /\nRUN sleep {seconds}\n")
    script = textwrap.dedent(f"""
        import os, signal, sys
        from pathlib import Path
        from soci_pipeline.builders.builder import load
        from soci_pipeline.builders.request import BuildRequest
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        request = BuildRequest.model_validate_json(sys.argv[1])
        load({name!r}).build(request, Path({str(tmp_path / "built")!r}))
    """)
    argv = [sys.executable, "-c", script, request(source).model_dump_json()]
    with subprocess.Popen(argv, env=dict(engine.env), stderr=subprocess.DEVNULL) as child:
        try:
            wait_for(lambda: bool(sleeping(seconds)), "the step to run")
            child.send_signal(number)
            child.wait(30)
            wait_for(lambda: not sleeping(seconds), "the step to end")
        finally:
            child.kill()


def test_prebuilt_takes_what_buildx_has_made_from_every_kind_of_place(
    engine: Engine, context: Path, tmp_path: Path, embedded_registry: str
) -> None:
    made = built("buildx", request(context), tmp_path / "made", engine)
    oci_archive(tmp_path / "made" / f"image-{HERE.slug}.tar", made)
    digest = made.root().digest
    with RegistryClient(embedded_registry) as client:
        push_graph(made, made.root(), client, "team/app", tag="1")
    with serving_files({"/image.tar": (200, (tmp_path / "made" / f"image-{HERE.slug}.tar").read_bytes())}) as server:
        places = [
            "image-{platform}.tar",
            "image",
            f"{server.address}/image.tar",
            f"docker://{embedded_registry}/team/app:1",
            f"docker://{embedded_registry}/team/app@{digest}",
        ]
        for number, place in enumerate(places):
            asked = request(tmp_path / "made", prebuilt=place)
            assert built("auto", asked, tmp_path / str(number), engine).root().digest == digest


def test_the_builder_of_a_killed_run_is_reaped(engine: Engine, tmp_path: Path) -> None:
    name = f"{PREFIX}test{os.getpid()}"
    env = {**engine.env, "BUILDX_CONFIG": str(tmp_path / "buildx")}
    run(["docker", "buildx", "create", "--name", name, "--driver", "docker-container"], env=env)
    folder = tmp_path / f"{PREFIX}run-killed"
    (folder / "built").mkdir(parents=True)
    (folder / LOCK).touch()
    (folder / "built" / BUILDER_RECORD).write_text(f"{name}\n")
    assert reap(tmp_path, REMOVERS, env=env).removed[BUILDER_RECORD] == (name,)
    assert name not in run(["docker", "buildx", "ls"], env=env).stdout
    assert not folder.exists()


def sleeping(seconds: str) -> list[str]:
    """The processes of the machine, of containers too, that sleep for that long."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] and words[0].endswith(b"sleep") and words[1:2] == [seconds.encode()]:
            found.append(path.parent.name)
    return found


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)


@pytest.mark.parametrize("example", ["buildx-static-site", "docker-classic"])
def test_the_examples_build(engine: Engine, tmp_path: Path, example: str) -> None:
    source = Path(__file__).resolve().parents[2]
    name = example.partition("-")[0]
    layout = built(name, request(source, context=f"examples/{example}"), tmp_path, engine)
    assert len(contents(layout)) >= 1


def test_a_full_disk_is_named_and_nothing_is_taken_for_an_image(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    source = image_layout(tmp_path / "source", HERE, [gzip_layer({"a": noise(3_000_000)})])
    disk = tmp_path / "disk"
    disk.mkdir()
    script = textwrap.dedent(f"""
        from pathlib import Path
        from soci_pipeline.builders.import_image import import_image
        from soci_pipeline.errors import DiskFull
        from soci_pipeline.oci.layout import Layout
        from soci_pipeline.oci.platform import Platform
        try:
            import_image(Path({str(source.path)!r}), Path({str(disk / "image")!r}), platform=Platform.native())
        except DiskFull as error:
            assert Layout.open(Path({str(disk / "image")!r})).roots() == ()
            print("named:", error.reason)
    """)
    mount = f'mount -t tmpfs -o size=1m tmpfs "{disk}" && exec "$0" -c "$1"'
    shown = run(["unshare", "--mount", "sh", "-c", mount, sys.executable, script]).stdout
    assert "named: no space left" in shown


def test_a_named_remote_builder_gives_the_same_image(engine: Engine, context: Path, tmp_path: Path) -> None:
    if not engine.docker_host.startswith("unix://") or not engine.containerd_image_store:
        pytest.skip("the engine's BuildKit cannot stand for a remote one")
    far = replace(engine, env={**engine.env, "BUILDX_CONFIG": str(tmp_path / "buildx")})
    with buildkit_address(engine.docker_host) as address:
        run(["docker", "buildx", "create", "--name", "far", "--driver", "remote", address], env=far.env)
        remote = built("buildx", request(context, buildx_builder="far"), tmp_path / "far", far)
        assert "far" in run(["docker", "buildx", "ls"], env=far.env).stdout
    assert remote.root() == built("buildx", request(context), tmp_path / "near", engine).root()


def test_docker_refuses_a_foreign_platform_where_it_would_take_a_base_image_of_its_own(
    engine: Engine, context: Path, tmp_path: Path
) -> None:
    if not engine.containerd_image_store:
        pytest.skip("the classic image store takes the base image of the platform that was asked for")
    foreign = next(p for p in (Platform("linux", "amd64"), Platform("linux", "arm64")) if not p.matches(HERE))
    with pytest.raises(NotSupportedByBuilder, match=f"builds only for {HERE.normalised()}"):
        built("docker", request(context, platform=foreign), tmp_path, engine)
