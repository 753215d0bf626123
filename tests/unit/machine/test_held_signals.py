import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from soci_pipeline.machine.held_signals import HeldSignals


class Stop(Exception):
    pass


@pytest.fixture
def came() -> Iterator[list[int]]:
    """Which signals handlers were called for; the handler of SIGTERM raises."""
    calls: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        calls.append(number)
        if number == signal.SIGTERM:
            raise Stop

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    yield calls
    for number, handler in before.items():
        assert signal.getsignal(number) is note, "a handler was not set again"
        signal.signal(number, handler)


def test_a_held_signal_reaches_its_handler_once_and_at_the_release(came: list[int]) -> None:
    held = HeldSignals()
    held.hold()
    signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGINT)
    assert came == []
    held.release()
    assert came == [signal.SIGHUP, signal.SIGINT]
    held.release()
    assert came == [signal.SIGHUP, signal.SIGINT]


def test_a_handler_that_raises_keeps_no_other_signal_from_its_handler(came: list[int]) -> None:
    held = HeldSignals()
    held.hold()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGHUP)
    with pytest.raises(Stop):
        held.release()
    held.release()
    assert came == [signal.SIGTERM, signal.SIGHUP]


def test_a_signal_after_the_release_is_not_held(came: list[int]) -> None:
    held = HeldSignals()
    held.hold()
    held.release()
    signal.raise_signal(signal.SIGHUP)
    assert came == [signal.SIGHUP]


def test_a_handler_that_was_set_after_the_release_stays(came: list[int]) -> None:
    held = HeldSignals()
    held.hold()
    held.release()
    own = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    held.release()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signal.signal(signal.SIGHUP, own)


def test_what_is_ignored_or_has_no_handler_stays_as_it_is(came: list[int]) -> None:
    own = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    held = HeldSignals()
    held.hold()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    held.release()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signal.signal(signal.SIGHUP, own)


def test_another_thread_holds_nothing(came: list[int]) -> None:
    held = HeldSignals()
    thread = threading.Thread(target=held.hold)
    thread.start()
    thread.join()
    signal.raise_signal(signal.SIGHUP)
    assert came == [signal.SIGHUP]
    held.release()
