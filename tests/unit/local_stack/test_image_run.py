"""A published image run and asked for a page, on an engine whose client is a stand-in that starts a real server."""

from pathlib import Path

import pytest

from local_stack import image_run
from local_stack.engine import Engine
from local_stack.image_run import ask_for_a_page
from local_stack.ports import listens
from soci_pipeline.errors import StackError, ToolFailed
from soci_pipeline.oci.platform import Platform
from tests.support.fake_programs import Programs

REFERENCE = "127.0.0.1:5000/demo/app:one"
# `run` starts what the image would: a server where its environment says; `rm` ends it.
DOCKER = """
import signal, subprocess
from pathlib import Path
here = Path(os.environ["HOME"])
words = sys.argv[1:]
settings = dict(word.split("=", 1) for word in words if word.startswith(("HOST=", "PORT=")))
if words[0] == "run" and (here / "page").is_dir():
    argv = [sys.executable, "-m", "http.server", settings["PORT"], "--bind", settings["HOST"]]
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    server = subprocess.Popen([*argv, "--directory", here / "page"], start_new_session=True, **quiet)
    (here / "server").write_text(str(server.pid))
elif words[0] == "rm" and (here / "server").exists():
    os.kill(int((here / "server").read_text()), signal.SIGKILL)
elif words[0] == "logs":
    print("no such module: service")
elif words[0] == "pull" and (here / "absent").exists():
    sys.exit("manifest unknown")
elif words[0] == "image":
    sys.exit("no such image")
"""


def _engine(folder: Path) -> tuple[Engine, Programs]:
    programs = Programs(folder)
    programs.add_python("docker", DOCKER)
    engine = Engine(
        docker_host="unix:///none",
        containerd_socket=None,
        version="28",
        containerd_image_store=True,
        private=True,
        env=programs.env,
    )
    return engine, programs


def _port(calls: list[str]) -> int:
    started = next(call for call in calls if call.startswith("docker run "))
    return int(started.partition("PORT=")[2].split()[0])


def test_the_page_comes_from_the_image_of_this_machine_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("hello from the image")
    engine, programs = _engine(tmp_path)
    assert ask_for_a_page(engine, REFERENCE) == "hello from the image"
    calls = programs.calls()
    assert calls[0] == f"docker pull --quiet --platform {Platform.native().normalised()} {REFERENCE}"
    assert "--env HOST=127.0.0.1" in calls[1], "nobody else on the network is to see it"
    name = calls[1].partition("--name ")[2].split()[0]
    assert calls[2:] == [f"docker rm --force --volumes {name}", f"docker image rm --force {REFERENCE}"]
    assert not listens(_port(calls))


def test_an_image_that_does_not_answer_is_shown_with_what_it_said_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_run, "_START_SECONDS", 0.3)
    engine, programs = _engine(tmp_path)
    with pytest.raises(StackError, match=r"(?s)does not answer.*no such module: service"):
        ask_for_a_page(engine, REFERENCE)
    assert [call.split()[1] for call in programs.calls()] == ["pull", "run", "logs", "rm", "image"]


def test_an_image_that_cannot_be_pulled_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "absent").touch()
    engine, programs = _engine(tmp_path)
    with pytest.raises(ToolFailed, match="manifest unknown"):
        ask_for_a_page(engine, REFERENCE)
    assert [call.split()[1] for call in programs.calls()] == ["pull"]
