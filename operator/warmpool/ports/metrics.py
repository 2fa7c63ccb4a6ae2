"""What is measured, as values: gauges are asked for when somebody scrapes, the rest is told."""

from dataclasses import dataclass
from typing import Protocol

from warmpool.domain.history import Record
from warmpool.domain.ids import Ref


@dataclass(frozen=True, slots=True)
class PoolSample:
    """A pool, as its status says."""

    ref: Ref
    wanted: int
    counts: dict[str, int]
    """VMs by state: ready, building, claimed, failed, retained."""
    claimable: dict[str, int]
    """VMs of the largest claim of each mode: any, hypervisors, racks."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One replica, at one moment."""

    leads: bool
    pools: tuple[PoolSample, ...] = ()
    claims_waiting: int = 0
    spool_records: int = 0
    history_lost: int = 0
    """Records that had to be dropped, so far."""
    notices_waiting: int = 0
    """News that people have not been told yet."""


class Meter(Protocol):
    """Takes measurements. Never waits, never fails."""

    def record(self, record: Record) -> None:
        """Something has happened."""

    def nova_call(self, name: str, seconds: float, outcome: str) -> None:
        """A call to a cloud: its name is one of few, its outcome `ok` or the class of an error."""

    def api_write(self, verb: str, kind: str, seconds: float, outcome: str) -> None:
        """A write to the API server: its outcome `ok` or the class of an error."""

    def ledger(self, entries: int) -> None:
        """The ledger was written with so many bindings in flight."""

    def refilled(self, pool: Ref, seconds: float) -> None:
        """A pool is full again, so long after it was not."""

    def lag(self, seconds: float) -> None:
        """The event loop was so much later than it should have been."""
