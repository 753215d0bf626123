"""The demo, end to end: what it publishes, and that nothing of it is left."""

import signal

import pytest

from local_stack.footprint import marked_processes
from tests.support.demos import FOLDER, mark_of, nothing_is_left, started_demo, wait_for_a_process, whole_demo

_COLD_SECONDS = 900


@pytest.mark.timeout(1500)
def test_the_demo_publishes_both_platforms_and_the_image_answers() -> None:
    answer = whole_demo()
    assert [each["platform"] for each in answer["platforms"]] == ["linux/amd64", "linux/arm64"]
    assert all(any(layer["ztoc"] for layer in each["layers"]) for each in answer["platforms"])
    assert all(each["soci_index"] for each in answer["platforms"])
    assert len(answer["tags"]) == 1
    assert answer["reference"].endswith(f":{answer['tags'][0]}")
    if answer["not_built"] is None:
        assert "Hello from" in answer["page"]
    assert answer["duration_s"] < _COLD_SECONDS
    nothing_is_left()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_demo_that_is_interrupted_stops_what_it_started(number: signal.Signals) -> None:
    with started_demo() as demo:
        mark = mark_of(FOLDER / "stack")
        wait_for_a_process(mark)
        demo.send_signal(number)
        assert demo.wait(60) == 130
    assert not any(marked_processes(mark))
    nothing_is_left()
