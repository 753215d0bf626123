"""The cleaner deletes what the configuration no longer keeps."""

from pathlib import Path

from soci_pipeline.webhook.configuration import Configuration
from soci_pipeline.webhook.outbox import Outbox
from soci_pipeline.webhook.retention import Cleaner
from tests.support import webhook as support
from tests.support.outboxes import Clock, digest, finished


def test_the_configuration_says_how_long_what_ended_is_kept(outbox: Outbox, clock: Clock, tmp_path: Path) -> None:
    def configured(**retention: float) -> Configuration:
        return support.configuration(tmp_path, retention=retention)

    for number in range(3):
        finished(outbox, number)
    cleaner = Cleaner(outbox, configured(runs_days=8, hashes_days=8))
    clock.now += 7.5 * 86400
    cleaner.step()
    assert outbox.counts()["dispatched"] == 3
    clock.now += 86400
    cleaner.step()
    assert outbox.counts()["dispatched"] == 0
    assert not outbox.has(digest(1))
    Cleaner(outbox, configured(runs_days=1)).step()


def test_what_may_still_change_is_not_deleted(outbox: Outbox, clock: Clock, tmp_path: Path) -> None:
    finished(outbox, 1, "CRASHED")
    clock.now += 2 * 86400
    Cleaner(outbox, support.configuration(tmp_path, retention={"runs_days": 1})).step()
    assert outbox.counts()["dispatched"] == 1
