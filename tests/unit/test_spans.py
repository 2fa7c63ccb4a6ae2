"""Spans in steps: percentiles out of counts."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from warmpool.domain.spans import GROWTH, LONGEST, end_of, percentile, step_of

SPANS = st.floats(min_value=0, max_value=LONGEST)


@given(SPANS)
def test_a_span_lies_within_its_step(span: float) -> None:
    step = step_of(span)
    assert span <= end_of(step) * (1 + 1e-9)
    assert step == 0 or span >= end_of(step - 1) * (1 - 1e-9)


@given(st.lists(SPANS, min_size=1, max_size=50), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_percentile_is_never_too_small_and_hardly_too_large(
    spans: list[float], part: float
) -> None:
    found = percentile(Counter(map(step_of, spans)), part)
    ordered = sorted(spans)
    exact = next(s for n, s in enumerate(ordered, 1) if n >= part * len(spans))
    assert found is not None
    assert exact * (1 - 1e-9) <= found <= exact * GROWTH * (1 + 1e-9) + 0.001


def test_of_nothing_there_is_no_percentile() -> None:
    assert percentile({}, 0.5) is None
    assert percentile({3: 0}, 0.5) is None


def test_a_part_beyond_all_is_the_longest() -> None:
    assert percentile({3: 1, 7: 1}, 1.5) == end_of(7)


def test_what_is_below_zero_or_beyond_all_bounds_counts_all_the_same() -> None:
    assert step_of(-1.0) == 0
    assert step_of(LONGEST * 2) == step_of(LONGEST)
