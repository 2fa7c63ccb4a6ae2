"""Spans of time in steps, so that counts of them can be added up and tell percentiles.

Every step is a twentieth wider than the one before it. A percentile out of such counts is the upper
end of a step: never too small, and at most 5 % and a millisecond too large. Unlike the estimates
that databases make, it is the same wherever the counts come from.
"""

from collections.abc import Mapping
from math import floor, log
from typing import Final

GROWTH: Final = 1.05

LONGEST: Final = 10 * 366 * 86400.0
"""Seconds; longer spans count as this."""


def step_of(seconds: float) -> int:
    """The step that a span falls into. 0: less than a millisecond."""
    milliseconds = min(max(seconds, 0.0), LONGEST) * 1000
    return 0 if milliseconds < 1 else 1 + floor(log(milliseconds) / log(GROWTH))


def end_of(step: int) -> float:
    """The upper end of a step, in seconds."""
    return float(GROWTH**step) / 1000


def percentile(counts: Mapping[int, int], part: float) -> float | None:
    """Seconds within which `part` (0 to 1) of the spans lie. `counts` is per step. None of none."""
    total = sum(counts.values())
    if not total:
        return None
    left = part * total
    for step in sorted(counts):
        left -= counts[step]
        if left <= 0:
            return end_of(step)
    return end_of(max(counts))
