"""Outcomes, and the commit statuses that are still to report."""

from soci_pipeline.webhook.outbox import DispatchState, Outbox, StatusTarget
from tests.support.outboxes import Clock, digest, finished, planned


def test_a_report_that_is_postponed_is_due_later_and_every_try_counts(outbox: Outbox, clock: Clock) -> None:
    finished(outbox, 1, target=StatusTarget("a", "c"))
    for number in range(3):
        (run,) = outbox.to_report()
        assert run.report_attempts == number
        outbox.postpone_report(run, 10)
        assert outbox.to_report() == []
        clock.now += 9
        assert outbox.to_report() == []
        clock.now += 1


def test_runs_that_ended_are_found_for_a_while_and_by_their_id(outbox: Outbox, clock: Clock) -> None:
    for number in range(1, 4):
        finished(outbox, number)
    finished(outbox, 4, "RUNNING")

    def ids(**options: float) -> list[str | None]:
        return [run.flow_run_id for run in outbox.ended(10, **{"within_s": 60, **options})]  # type: ignore[arg-type]

    (first, *_) = outbox.ended(1, within_s=60)
    assert ids() == ["id1", "id2", "id3"]
    assert ids(after=first.id) == ["id2", "id3"]
    clock.now += 60
    assert ids() == ["id1", "id2", "id3"]
    assert ids(within_s=59) == []
    assert [run.flow_run_id for run in outbox.unfinished()] == ["id4"]


def test_the_first_run_of_all_is_unfinished_until_it_ends(outbox: Outbox) -> None:
    finished(outbox, 1, "RUNNING")
    (run,) = outbox.unfinished()
    assert outbox.unfinished(after=run.id) == []
    outbox.set_outcome(run, "COMPLETED")
    assert outbox.unfinished() == []


def test_a_failed_run_is_final_and_reported(outbox: Outbox) -> None:
    outbox.store(digest(1), "s", "x", [planned()], target=StatusTarget("a", "c"))
    run = outbox.claim()
    assert run is not None
    outbox.fail(run, "no")
    assert outbox.unfinished() == []
    (to_report,) = outbox.to_report()
    assert (to_report.state, to_report.outcome) == (DispatchState.FAILED, "NOT_STARTED")
    outbox.reported(to_report, "NOT_STARTED")
    assert outbox.to_report() == []


def test_an_older_status_that_is_reported_leaves_a_newer_one_to_report_with_all_its_tries(outbox: Outbox) -> None:
    finished(outbox, 1, "RUNNING", target=StatusTarget("a", "c"))
    (run,) = outbox.to_report()
    outbox.postpone_report(run, 0)
    outbox.reported(run, "SCHEDULED")
    (again,) = outbox.to_report()
    assert (again.outcome, again.reported, again.report_attempts) == ("RUNNING", "SCHEDULED", 0)


def test_a_limit_bounds_what_one_look_finds_and_the_oldest_come_first(outbox: Outbox) -> None:
    for number in range(1, 4):
        finished(outbox, number, "RUNNING", target=StatusTarget("a", "c"))
    assert [run.flow_run_id for run in outbox.unfinished(2)] == ["id1", "id2"]
    assert [run.flow_run_id for run in outbox.to_report(1)] == ["id1"]
    assert len(outbox.unfinished()) == len(outbox.to_report()) == 3
