"""Ending on a signal: what was begun is stopped, and what was ignored stays ignored."""

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from soci_pipeline.commands.signals import ending_on_signals


@contextlib.contextmanager
def disposed(number: signal.Signals, handler: signal.Handlers) -> Iterator[None]:
    """What a signal does, whatever the tests were started with; nohup has the hang-up ignored."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_block_as_ctrl_c_does(number: signal.Signals) -> None:
    stopped: list[int] = []
    with disposed(number, signal.SIG_DFL):
        with pytest.raises(KeyboardInterrupt):
            _ended_by(number, stopped)
        assert stopped == [number]
        assert signal.getsignal(number) is signal.SIG_DFL


def _ended_by(number: int, stopped: list[int]) -> None:
    with ending_on_signals():
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            stopped.append(number)


def test_a_hang_up_that_nohup_ignores_stays_ignored() -> None:
    with disposed(signal.SIGHUP, signal.SIG_IGN):
        with ending_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
