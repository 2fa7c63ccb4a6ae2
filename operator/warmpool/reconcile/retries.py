"""How long to wait before a write to the API server that must happen is tried again."""

from typing import Final

from warmpool.domain.errors import (
    ClusterError,
    ClusterOutcomeUnknown,
    ClusterUnavailable,
    Forbidden,
)

UNANSWERED: Final = 0.3
"""Seconds after an attempt that the API server did not answer: claims are waiting."""

FORBIDDEN: Final = 1.0
"""Seconds after one that it forbade: for a moment after its start it knows no role, and forbids
everybody everything."""

REFUSED: Final = 5.0
"""Seconds after one that it refused: what is committed is carried out all the same, once whatever
stands in the way is mended."""


def pause_after(error: ClusterError) -> float:
    """Seconds until the next attempt."""
    match error:
        case ClusterUnavailable() | ClusterOutcomeUnknown():
            return UNANSWERED
        case Forbidden():
            return FORBIDDEN
        case _:
            return REFUSED
