"""Time as an argument."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The time of this process."""

    def now(self) -> datetime:
        """Wall-clock time in UTC: for what people read, never for waiting."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards: for waits and leases."""
        ...
