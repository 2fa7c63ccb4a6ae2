"""What a VM wrote on its console, cut down to what an object may hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmpool.api.v1alpha1.vm import MAX_CONSOLE
from warmpool.reconcile.console import ending


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("one\r\ntwo\r\n\r\n\n\nthree\n", "one\ntwo\nthree"),
        ("\x1b[1;31mred\x1b[0m and \x1b[2Jcleared\x07", "red and cleared"),
        ("[  OK  ] Started cloud-init.", "[  OK  ] Started cloud-init."),
    ],
)
def test_what_moves_a_cursor_goes(text: str, kept: str) -> None:
    assert ending(text) == kept


def test_whole_lines_are_kept_from_the_end() -> None:
    kept = ending("\n".join(f"line {n:06}" for n in range(10_000)))
    assert kept.endswith("line 009999")
    assert kept.startswith("line ")
    assert MAX_CONSOLE - 12 < len(kept) <= MAX_CONSOLE


def test_a_line_without_end_is_cut() -> None:
    assert ending("x" * 100_000) == "x" * MAX_CONSOLE


@given(st.text())
def test_whatever_a_guest_writes_fits_and_is_plain(text: str) -> None:
    kept = ending(text)
    assert len(kept) <= MAX_CONSOLE
    assert all(c == "\n" or c.isprintable() or not c.isascii() for c in kept)
    kept.encode()
