"""Deleting what ended long ago, but not the hashes that recognise a replay."""

from soci_pipeline.webhook.outbox import Outbox, StatusTarget
from tests.support.outboxes import Clock, digest, finished, planned


def test_what_ended_long_ago_is_deleted_and_a_replay_is_still_recognised(outbox: Outbox, clock: Clock) -> None:
    finished(outbox, 1)
    finished(outbox, 2, "RUNNING")
    finished(outbox, 3, target=StatusTarget("a", "c"))
    outbox.store(digest(4), "s", "x", [planned(subject=None)])
    clock.now += 100
    finished(outbox, 5)
    assert outbox.delete_finished(50) == 1
    kept = [outbox.run(f"{digest(number).hex()}-shop") is not None for number in range(1, 6)]
    assert kept == [False, True, True, True, True]
    assert not outbox.store(digest(1), "s", "x", [planned()]).new
    names = outbox._connection.execute("SELECT source, subject FROM events ORDER BY id").fetchall()
    assert [tuple(each) for each in names[:2]] == [("", ""), ("s", "x")]


def test_hashes_go_where_that_was_asked_for_and_never_before_their_runs(outbox: Outbox, clock: Clock) -> None:
    finished(outbox, 1)
    finished(outbox, 2)
    clock.now += 100
    assert outbox.delete_hashes(50) == 0
    assert outbox.delete_finished(50) == 2
    assert outbox.delete_hashes(50) == 2
    assert outbox.store(digest(1), "s", "x", [planned()]).new


def test_a_hash_stays_for_as_long_as_was_asked_for(outbox: Outbox, clock: Clock) -> None:
    finished(outbox, 1)
    assert outbox.delete_finished(0) == 1
    clock.now += 49
    assert outbox.delete_hashes(50) == 0
    clock.now += 1
    assert outbox.delete_hashes(50) == 1
