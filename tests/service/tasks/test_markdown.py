"""What somebody else chose appears as it is, and does nothing else."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.markdown import code, link, table, text

pytestmark = pytest.mark.first

HOSTILE = [
    "a|b",
    "`rm`",
    "<script>alert(1)</script>",
    "[here](javascript:alert(1))",
    "![x](https://evil.example/x.png)",
    "**bold** _it_ ~~no~~",
    "line\n# heading\r\n| cell |",
    "\\| \\`",
    "&lt;b&gt;",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_value_carries_no_markup(value: str) -> None:
    shown = text(value)
    assert not re.search(r"[|`<>\[\]()!*_~\\\r\n]", shown)
    assert html.unescape(shown) == re.sub(r"[\r\n]", " ", value)


@given(st.text(max_size=300))
def test_whoever_reads_it_sees_the_same_text(value: str) -> None:
    seen = html.unescape(text(value))
    assert seen == "".join(character if character.isprintable() else " " for character in value)


@given(st.text(alphabet="`|<>a\n", max_size=50))
def test_a_code_span_is_never_ended_by_what_is_in_it(value: str) -> None:
    shown = code(value)
    inner = shown[1:-1] if shown.startswith("`") and len(shown) > 1 else shown
    assert not re.search(r"[`|<>\n]", inner)


def test_a_digest_is_code_and_a_strange_name_is_text() -> None:
    assert code("sha256:ab") == "`sha256:ab`"
    assert code("a`b") == "a&#96;b"


def test_a_long_value_is_cut() -> None:
    assert html.unescape(text("x" * 1000)) == "x" * 300 + "…"


def test_a_table_has_as_many_cells_in_every_line() -> None:
    lines = table(["a", "b"], [[text("1|2"), code("3|4")]])
    assert [line.count("|") for line in lines] == [3, 3, 3]


def test_a_label_without_an_address_is_no_link() -> None:
    assert link("`x`", None) == "`x`"
    assert link("`x`", "https://a.example/b") == "[`x`](<https://a.example/b>)"
