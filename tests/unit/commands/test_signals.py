"""Ending on a signal: what was begun is stopped, and what was ignored stays ignored."""

import os
import signal

import pytest

from soci_pipeline.commands.signals import ending_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_block_as_ctrl_c_does(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stopped: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        _ended_by(number, stopped)
    assert stopped == [number]
    assert signal.getsignal(number) is before


def _ended_by(number: int, stopped: list[int]) -> None:
    with ending_on_signals():
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            stopped.append(number)


def test_a_hang_up_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
