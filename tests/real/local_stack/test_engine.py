"""A private engine: what it can do, and that nothing of it is left however it ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack.base_image import debian_base_image
from local_stack.binfmt import emulation
from local_stack.cgroups import unmount
from local_stack.engine import Engine, private_engine
from local_stack.footprint import footprint
from local_stack.toolchain import Toolchain
from soci_pipeline.machine.emulation import can_run, mounted_filesystems
from soci_pipeline.machine.programs import run
from soci_pipeline.oci.platform import Platform
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.push import push_graph

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a private engine"),
]

PLATFORMS = (Platform("linux", "amd64"), Platform("linux", "arm64"))


@pytest.fixture(scope="module")
def private(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with private_engine(tmp_path_factory.mktemp("private"), toolchain=toolchain) as engine:
        yield engine


@pytest.fixture(scope="module")
def base(toolchain: Toolchain, docker_registry: str) -> str:
    """The base image for both platforms, in a registry, by digest."""
    layout = debian_base_image(toolchain, PLATFORMS)
    with RegistryClient(docker_registry) as client:
        push_graph(layout, layout.root(), client, "base", tag="1")
    return f"{docker_registry}/base@{layout.root().digest}"


def _build(engine: Engine, folder: Path, base: str, platform: Platform, *lines: str) -> Path:
    (folder / "Dockerfile").write_text("\n".join(["ARG BASE", "FROM $BASE", *lines, ""]))
    archive = folder / f"{platform.slug}.tar"
    output = f"type=oci,dest={archive}"
    options = ["--platform", str(platform), "--network", "host", "--build-arg", f"BASE={base}", "--output", output]
    run(["docker", "buildx", "build", "--no-cache", *options, str(folder)], env=engine.env, timeout=300)
    return archive


def _config(archive: Path) -> dict[str, object]:
    with tarfile.open(archive) as members:

        def read(digest: str) -> dict[str, object]:
            file = members.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert file is not None
            return dict(json.load(file))

        index = members.extractfile("index.json")
        assert index is not None
        manifest = read(json.load(index)["manifests"][0]["digest"])
        config = manifest["config"]
        assert isinstance(config, dict)
        return read(config["digest"])


def test_it_keeps_images_in_containerd_and_names_the_socket(private: Engine) -> None:
    assert private.private
    assert private.containerd_image_store
    assert private.containerd_socket is not None
    assert private.containerd_socket.is_socket()
    assert "Server:" in run(["ctr", "version"], env=private.env).stdout


@pytest.mark.parametrize("platform", PLATFORMS, ids=str)
def test_it_builds_for_both_architectures_without_emulation(
    private: Engine, base: str, tmp_path: Path, platform: Platform
) -> None:
    archive = _build(private, tmp_path, base, platform, "COPY Dockerfile /it")
    assert _config(archive)["architecture"] == platform.architecture


def test_a_run_step_of_a_foreign_architecture_runs_under_emulation_which_is_unregistered_afterwards(
    private: Engine, base: str, tmp_path: Path, toolchain: Toolchain
) -> None:
    foreign = next(platform for platform in PLATFORMS if platform != Platform.native())
    before = can_run(foreign.architecture)
    mounts = mounted_filesystems()
    step = "RUN python3 -c \"import platform; open('/machine', 'w').write(platform.machine())\" && grep . /machine"
    with footprint(tmp_path / "emulation") as traces, emulation(foreign, traces, toolchain=toolchain):
        assert can_run(foreign.architecture)
        _build(private, tmp_path, base, foreign, step.replace("grep .", "cat"))
    assert can_run(foreign.architecture) == before
    assert mounted_filesystems() == mounts


def test_a_container_runs_and_the_host_sees_none_of_its_mounts(private: Engine, base: str) -> None:
    before = mounted_filesystems()
    said = run(
        ["docker", "run", "--rm", "--network", "host", base, "python3", "-c", "print(6 * 7)"],
        env=private.env,
        timeout=120,
    )
    assert said.stdout.strip() == "42"
    assert mounted_filesystems() == before


def test_a_second_engine_runs_beside_the_first(private: Engine, toolchain: Toolchain, tmp_path: Path) -> None:
    with private_engine(tmp_path, toolchain=toolchain) as second:
        assert second.docker_host != private.docker_host
        run(["docker", "version"], env=second.env)
    run(["docker", "version"], env=private.env)


@pytest.mark.parametrize("ending", ["normally", "SIGINT", "an error", "SIGKILL"])
def test_nothing_is_left_however_it_ends(toolchain: Toolchain, base: str, tmp_path: Path, ending: str) -> None:
    ended = _run_with_container(toolchain, base, tmp_path, ending)
    name = ended.stdout.decode().strip()
    assert name.startswith("soci-engine-")
    if ending == "SIGKILL":
        assert ended.returncode == -signal.SIGKILL
        assert any(_traces(name).values())
        with private_engine(tmp_path / "engine", toolchain=toolchain):
            pass
    assert not any(_traces(name).values()), _traces(name)


def _run_with_container(
    toolchain: Toolchain, base: str, folder: Path, ending: str
) -> subprocess.CompletedProcess[bytes]:
    """Run an engine with a running container in another process, which prints its name, and end that in some way."""
    endings = {
        "normally": "pass",
        "SIGINT": "os.kill(os.getpid(), signal.SIGINT)",
        "an error": "raise RuntimeError",
        "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    }
    code = f"""
        import os, signal, sys
        from pathlib import Path
        from local_stack.engine import private_engine
        from local_stack.toolchain import Toolchain
        from soci_pipeline.machine.programs import run
        tools = Toolchain(Path({str(toolchain.folder)!r}))
        with private_engine(Path({str(folder / "engine")!r}), toolchain=tools) as engine:
            print(Path(engine.docker_host).parent.name, flush=True)
            command = ["docker", "run", "--detach", "--network", "host", {base!r}, "sleep", "600"]
            run(command, env=engine.env, timeout=120)
            {endings[ending]}
    """
    argv = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(argv, check=False, timeout=180, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _traces(name: str) -> dict[str, list[str]]:
    """What an engine could leave: processes, mounts, control groups, and its folder of sockets."""
    targets = mounted_filesystems()
    return {
        "processes": [line for line in _command_lines() if name in line],
        "mounts": [target for target, _ in targets if name in target],
        "groups": [target for target, kind in targets if kind.startswith("cgroup") and (Path(target) / name).exists()],
        "folders": [str(path) for path in [Path(tempfile.gettempdir()) / name, Path("/tmp") / name] if path.exists()],
    }


def _command_lines() -> Iterator[str]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                yield (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def test_a_folder_with_a_mount_below_it_is_never_removed(tmp_path: Path) -> None:
    """What is bound there may be anything, the root of the machine too."""
    precious, folder = tmp_path / "precious", tmp_path / "folder"
    precious.mkdir()
    (precious / "file").touch()
    (folder / "bound").mkdir(parents=True)
    run(["mount", "--bind", precious, folder / "bound"])
    try:
        with footprint(tmp_path / "stack") as traces:
            traces.record_folder(folder)
        assert (precious / "file").exists()
        with footprint(tmp_path / "stack") as traces:
            traces.record_folder(folder)
            traces.record_mount(folder / "bound")
        assert (precious / "file").exists()
        assert not folder.exists()
    finally:
        unmount(folder / "bound")
