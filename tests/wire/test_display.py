"""What is shown to people."""

import pytest

from consumer.wire import printable
from consumer.wire.display import printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("\u00fc \u4e2d \u0627 \U0001f600 <b>&", "\u00fc \u4e2d \u0627 \U0001f600 <b>&"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("two\nlines\r\t", "two\\nlines\\r\\t"),
        ("nul\0 del\x7f csi\x9b", "nul\\x00 del\\x7f csi\\x9b"),
        ("\u202eevil\u2066\u200f\u2028", "\\u202eevil\\u2066\\u200f\\u2028"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("lone \udcff", "lone \\udcff"),
        ("", ""),
    ],
)
def test_what_a_terminal_obeys_or_hides_is_spelled(text: str, shown: str) -> None:
    """Controls, escapes, overrides and invisibles are spelled out; letters of every script stay."""
    assert printable(text) == shown
    assert shown.isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one line", "one line"),
        ("two\nlines\r\nand three", "two\nlines\nand three"),
        ("\x1b[31mred\nplain\r", "\\x1b[31mred\nplain\\r"),
        ("", ""),
    ],
)
def test_line_breaks_stay_where_lines_are_shown(text: str, shown: str) -> None:
    """Everything else is spelled out, line by line."""
    assert printable_lines(text) == shown
