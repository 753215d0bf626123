"""The demo when it is kept, and when it is killed: its stack stays up, and the next one takes over."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from local_stack.footprint import marked_processes
from soci_pipeline.errors import ExitCode
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from tests.support.demos import DEMO, FOLDER, mark_of, started_demo, wait_for_a_process


@pytest.mark.timeout(1500)
def test_a_kept_demo_answers_while_its_stack_is_up_and_says_what_it_could_not_build(tmp_path: Path) -> None:
    said = tmp_path / "stderr"
    with said.open("wb") as stderr, started_demo("--keep", "--json", stdout=subprocess.PIPE, stderr=stderr) as demo:
        assert demo.stdout is not None
        lines = list(iter(demo.stdout.readline, b"}\n"))
        assert lines, said.read_text()[-5000:]
        answer = json.loads(b"".join([*lines, b"}"]))
        reference = ImageReference.parse(answer["reference"])
        with RegistryClient(reference.registry) as registry:
            published, _ = registry.manifests.get(reference.repository, reference.tag or "")
            second = subprocess.run(DEMO, check=False, capture_output=True, text=True, timeout=60)
            assert second.returncode == ExitCode.STACK
            assert "another demo is running" in second.stderr
            assert registry.manifests.get(reference.repository, reference.tag or "")[0] == published
        mark = mark_of(FOLDER / "stack")
        demo.send_signal(signal.SIGINT)
        assert (demo.stdout.read(), demo.wait(60)) == (b"", ExitCode.OK), said.read_text()[-5000:]
    assert str(published.digest) == answer["index"]
    assert [each["platform"] for each in answer["platforms"]] == ["linux/amd64", "linux/arm64"]
    assert all(each["soci_index"] for each in answer["platforms"])
    assert answer["page"] is None
    assert answer["not_built"]
    assert not any(marked_processes(mark))
    assert FOLDER.exists(), "its data are kept too"
    shutil.rmtree(FOLDER)


@pytest.mark.timeout(600)
def test_what_a_killed_demo_left_is_taken_away_by_the_next() -> None:
    with started_demo() as demo:
        mark = mark_of(FOLDER / "stack")
        wait_for_a_process(mark)
        demo.kill()
    assert any(marked_processes(mark))
    with started_demo() as second:
        wait_for_a_process(mark_of(FOLDER / "stack", other_than=mark))
        assert not any(marked_processes(mark))
        second.send_signal(signal.SIGINT)
        second.wait(60)
