"""Spans of time and moments, as the API writes them."""

from datetime import datetime, timedelta, timezone

import pytest

from warmpool.api.v1alpha1.base import micro_timestamp, seconds, timestamp

MOMENT = datetime(2030, 1, 1, 14, 0, 0, 1500, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("text", "span"),
    [("0s", 0), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("1h1m1s", 3661), ("30m1h", 5400)],
)
def test_a_span_is_read(text: str, span: int) -> None:
    assert seconds(text) == timedelta(seconds=span)


@pytest.mark.parametrize("text", ["", "5", "m", "5d", "-5s", "1.5h", "5 m", "PT5M", "5s\n"])
def test_what_is_no_span_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 90s, 15m or 1h30m"):
        seconds(text)


def test_moments_are_written_in_utc_whole_or_with_six_digits() -> None:
    assert timestamp(MOMENT) == "2030-01-01T12:00:00Z"
    assert micro_timestamp(MOMENT) == "2030-01-01T12:00:00.001500Z"
