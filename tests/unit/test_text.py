"""Amounts as people read them."""

from soci_pipeline.text import counted, for_terminal, sized


def test_one_is_counted_without_an_s() -> None:
    assert [counted(number, "tag") for number in (0, 1, 2)] == ["0 tags", "1 tag", "2 tags"]
    assert [counted(number, "entry", "entries") for number in (1, 2)] == ["1 entry", "2 entries"]


def test_sizes_are_for_people() -> None:
    assert [sized(count) for count in (0, 512, 1536, 3 << 20)] == ["0 B", "512 B", "1.5 KiB", "3.0 MiB"]
    assert (sized(200 << 10), sized(1 << 20)) == ("200.0 KiB", "1.0 MiB")
    assert [sized(count) for count in (1023 << 20, 1 << 30, 5 << 40, 2000 << 40)] == [
        "1023.0 MiB",
        "1.0 GiB",
        "5.0 TiB",
        "2000.0 TiB",
    ]
    assert [sized(count) for count in (999.6, 1023.6, 2560.0)] == ["1000 B", "1.0 KiB", "2.5 KiB"]
    assert [sized((1 << power) - 1) for power in (20, 30, 40)] == ["1.0 MiB", "1.0 GiB", "1.0 TiB"]


def test_a_terminal_gets_text_and_no_commands() -> None:
    assert for_terminal("\x1b[31mred\x1b[0m\tone\r\ntwo") == "red\tone\ntwo"
    assert for_terminal("\x1b]0;title\x07 \x1b[2J \x9b2J over\rwritten \u202eright") == (
        r"\x1b]0;title\x07 \x1b[2J \x9b2J over\rwritten \u202eright"
    )
