"""The troubleshooting entries as data: what a heading is, and how an entry is found."""

from soci_pipeline.troubleshooting import Entry, explained

ENTRIES = (Entry("DiskFull", 21, "No space.", "- Free space."), Entry("Crashed", None, "It died.", "- Publish again."))


def test_an_entry_is_found_by_its_name_in_any_case_and_by_its_status() -> None:
    assert explained("diskFULL", ENTRIES) == [ENTRIES[0]]
    assert explained("21", ENTRIES) == [ENTRIES[0]]


def test_an_outcome_without_a_status_is_found_by_its_name_only() -> None:
    assert explained("Crashed", ENTRIES) == [ENTRIES[1]]
    assert explained("None", ENTRIES) == []
