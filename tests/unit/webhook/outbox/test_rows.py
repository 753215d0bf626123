"""Rows as records: a damaged one is logged and holds up no other."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from soci_pipeline.webhook.outbox import Outbox, StatusTarget
from tests.support.outboxes import digest, planned


@pytest.mark.parametrize("text", [b"{", b"3", b'{"image": "r.example/\xff"}', b"\xff\xfe"])
def test_a_row_that_is_damaged_is_given_up_and_holds_up_no_other(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "events.sqlite3"
    with Outbox(path) as outbox:
        for number in (1, 2):
            outbox.store(digest(number), "s", "x", [planned(subject=None)], target=StatusTarget("team/shop", "c"))
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE runs SET parameters = CAST(? AS TEXT) WHERE id = 1", (text,))
        other.commit()
    with Outbox(path) as outbox:
        run = outbox.claim()
        assert run is not None
        assert run.id == 2
        assert (outbox.counts()["failed"], outbox.counts()["dispatching"]) == (1, 1)
        assert outbox.to_report() == []
        assert outbox.delete_finished(0) == 1
