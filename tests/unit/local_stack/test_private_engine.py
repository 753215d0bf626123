"""How a private engine is started, and what is left of it, with a stand-in for dockerd; the real tier has real ones."""

import json
import os
from pathlib import Path

import pytest

from local_stack import cgroups, engine
from local_stack.engine import private_engine, running_engine
from local_stack.footprint import VARIABLE
from local_stack.toolchain import Toolchain
from soci_pipeline.errors import StackError
from soci_pipeline.machine import emulation
from tests.support.fake_programs import Programs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a private engine")

# Answers at the socket of its configuration, and leaves a process behind as a shim would be.
DOCKERD = """
import json, socketserver, subprocess
from http.server import BaseHTTPRequestHandler
settings = json.load(open(sys.argv[2]))
here = os.path.dirname(os.environ["CALLS"])
json.dump(settings, open(here + "/settings", "w"))
json.dump(dict(os.environ), open(here + "/environment", "w"))
subprocess.Popen(["sleep", "600"], start_new_session=True)
if os.path.exists(here + "/broken"):
    sys.exit("failed to start daemon: no space left on device")
class Handler(BaseHTTPRequestHandler):
    def address_string(self):
        return "socket"
    def do_GET(self):
        version = {"ApiVersion": "1.45"}
        store = [["driver-type", "io.containerd.snapshotter.v1"]]
        body = json.dumps(version if self.path.endswith("/version") else
                          {"ServerVersion": "28.0.1", "DriverStatus": store}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
address = settings["hosts"][0].removeprefix("unix://")
socketserver.ThreadingUnixStreamServer(address, Handler).serve_forever()
"""
OTHERS = ("docker", "docker-buildx", "containerd", "containerd-shim-runc-v2", "ctr", "runc")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """A toolchain folder with an engine; this machine's mounts and namespaces stay as they are."""
    made = Programs(tmp_path / "toolchain" / "bin")
    made.folder.mkdir(parents=True)
    made.add_python("dockerd", DOCKERD)
    for name in OTHERS:
        made.add(name, "exit 0")
    made.add("unshare", 'while [ "$1" != sh ]; do shift; done; exec "$@"')
    made.add("mount", "")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nnone {tmp_path}/cgroup cgroup2 rw 0 0\n")
    monkeypatch.setattr(emulation, "MOUNTS", mounts)
    monkeypatch.setattr(cgroups, "_ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(engine, "_HIDDEN_FOLDERS", (tmp_path / "run" / "containerd", tmp_path / "run" / "docker"))
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    return made


def _settings(programs: Programs) -> dict[str, object]:
    found: dict[str, object] = json.loads((programs.folder / "settings").read_text())
    return found


def test_it_answers_at_a_socket_of_its_own_and_nothing_of_it_is_left(tmp_path: Path, programs: Programs) -> None:
    with private_engine(tmp_path / "engine", toolchain=Toolchain(tmp_path / "toolchain")) as started:
        assert (started.private, started.version, started.containerd_image_store) == (True, "28.0.1", True)
        runtime = Path(started.docker_host.removeprefix("unix://")).parent
        assert len(str(runtime)) <= 60, "the kernel takes 107 bytes for a socket's path"
        assert started.containerd_socket == runtime / "exec" / "containerd" / "containerd.sock"
        assert started.env["DOCKER_HOST"] == started.docker_host
        plugins = Path(started.env["DOCKER_CONFIG"]) / "cli-plugins"
        assert (plugins / "docker-buildx").resolve() == programs.folder / "docker-buildx"
        environment = json.loads((programs.folder / "environment").read_text())
        mark = environment[VARIABLE]
        assert _marked(mark)
    assert not runtime.exists()
    assert not _marked(mark)
    assert not (tmp_path / "run" / "docker").exists(), "an empty folder that was made for it"


def test_it_can_run_beside_another_engine(tmp_path: Path, programs: Programs) -> None:
    with private_engine(tmp_path / "engine", toolchain=Toolchain(tmp_path / "toolchain")):
        pass
    settings = _settings(programs)
    assert settings["bridge"] == "none"
    assert not any(settings[name] for name in ("iptables", "ip6tables", "ip-forward", "ip-masq", "userland-proxy"))
    assert str(settings["data-root"]) == str(tmp_path / "engine" / "data")
    unshared = next(call for call in programs.calls() if call.startswith("unshare "))
    assert {"--mount", "--pid", "--kill-child"} <= set(unshared.split())
    hidden = [call.split()[-1] for call in programs.calls() if call.startswith("mount -t tmpfs")]
    assert hidden == [f"{tmp_path}/run/containerd", f"{tmp_path}/run/docker"]


def test_one_that_does_not_come_up_is_shown_with_its_log_and_taken_away(tmp_path: Path, programs: Programs) -> None:
    (programs.folder / "broken").touch()
    with (
        pytest.raises(StackError, match=r"(?s)private Docker engine ended while starting.*no space left") as caught,
        private_engine(tmp_path / "engine", toolchain=Toolchain(tmp_path / "toolchain")),
    ):
        pytest.fail("it does not run")
    assert str(tmp_path / "engine" / "engine.log") in str(caught.value.advice)
    assert not _marked(json.loads((programs.folder / "environment").read_text())[VARIABLE])


def test_a_private_one_can_be_asked_for_where_another_is_named(
    tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/somebody-elses.sock")
    tools = Toolchain(tmp_path / "toolchain")
    with running_engine(tmp_path / "engine", toolchain=tools, private=True) as started:
        assert started.private
        assert started.docker_host != os.environ["DOCKER_HOST"]


def _marked(mark: str) -> list[str]:
    """The processes that carry a stack's mark, as the kernel lists them."""
    wanted = f"{VARIABLE}={mark}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append(process.name)
        except OSError:
            continue
    return found
