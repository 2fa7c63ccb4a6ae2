"""I7: nothing is written by a replica that does not lead. What that means, seen from outside.

A replica may believe that it leads from the moment its name stands in the Lease until `deadline`
after the renewal that it last had carried out, or until it released it. Whatever the API server
received from it in that time, and `SLACK` beyond for the way there, is as it should be.

What came later is not always a fault. A request that had left in time may be on its way for as long
as the network likes, and a process that was stopped between its look at the clock and its call of
the socket goes on where it was. No replica can prevent that, so it must do no harm: a late write
of the ledger is refused, for its epoch is over, and of the others those that are carried out
must leave I1 to I6 as they are, which are looked at in every revision, with no regard for who has
written it. So a late write is a fault if

- it is one of the ledger, was carried out, and another replica had taken the ledger over; or
- nothing befell the replica, its network or the API server that could have delayed it. What
  the API server has received in time, it alone has delayed.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.audit import Write
from harness.history import Event
from warmpool.api.names import Kind

SLACK: Final = 1.0
"""Seconds from a look at the clock to the API server's receipt, on a machine that is busy."""

CAUGHT_UP: Final = 2.0
"""Seconds after a trouble's end by which watches show what is there: kopf waits for one before it
asks for a new one."""

UNSEEN: Final = ("kill", "term", "cloud")
"""Troubles after which a replica that is there sees as well as before."""

LEASES: Final = "leases"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that was done to a replica, or to all. Times are seconds since the epoch."""

    begin: float
    end: float
    kind: str
    replica: str = ""
    """How the names of those begin that it struck."""
    delays: bool = True
    """Whether it can hold up what is under way, and not only end it."""

    def blinds(self, replica: str) -> bool:
        """Whether it keeps a replica from seeing what others write."""
        return self.kind not in UNSEEN and replica.startswith(self.replica)


def blind_since(troubles: Sequence[Trouble], replica: str, since: float, until: float) -> float:
    """Since when a replica's watches may have stood still at some moment between these two.

    Who is cut off again before it has caught up has seen nothing since the first time.
    """
    hits = [trouble for trouble in troubles if trouble.blinds(replica)]
    for trouble in sorted(hits, key=lambda trouble: trouble.begin, reverse=True):
        if trouble.begin <= until and trouble.end + CAUGHT_UP >= since:
            since = min(since, trouble.begin)
    return since


@dataclass(slots=True)
class Finding:
    """What came of the look at who wrote."""

    faults: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)
    late: list[Write] = field(default_factory=list)
    """Carried out after their replica could believe to lead."""


class Terms:
    """Until when each replica could believe to lead, as it went on."""

    def __init__(
        self, writes: Iterable[Write], replicas: Mapping[str, str], deadline: float
    ) -> None:
        """`replicas`: by the id of their tokens. `deadline`: seconds, as they have it set."""
        self._times: dict[str, list[float]] = defaultdict(list)
        self._until: dict[str, list[float]] = defaultdict(list)
        for write in sorted(writes, key=lambda w: w.received):
            if write.holder is None or not write.carried_out:
                continue
            replica = replicas.get(write.credential, "")
            ends = write.renewed + deadline if write.holder else write.received
            self._times[replica].append(write.received)
            self._until[replica].append(ends)

    def until(self, replica: str, at: float) -> float:
        """Until when it could believe so by what it had asked for up to a moment; 0: never."""
        number = bisect_right(self._times[replica], at)
        return self._until[replica][number - 1] if number else 0.0

    def anybody_until(self, at: float) -> float:
        """The same, of all replicas."""
        return max((self.until(replica, at) for replica in list(self._times)), default=0.0)


@dataclass(slots=True)
class Court:
    """Judges writes of known replicas."""

    terms: Terms
    replicas: Mapping[str, str]
    """By the id of their tokens."""
    troubles: Sequence[Trouble]

    def judge(self, writes: Iterable[Write], ledger: Sequence[Event]) -> Finding:
        """Look at every write, and at every version of the ledger."""
        finding = Finding()
        by_revision: dict[int, str] = {}
        for write in writes:
            replica = self.replicas.get(write.credential)
            if replica is None:
                finding.faults.append(f"I7: nobody knows who asked for {write}")
                continue
            if write.revision is not None and write.carried_out:
                by_revision[write.revision] = replica
            if write.what != LEASES:
                self._judge(write, replica, finding)
        self._judge_ledger(ledger, by_revision, finding)
        return finding

    def _judge(self, write: Write, replica: str, finding: Finding) -> None:
        finding.figures["writes"] += 1
        until = self.terms.until(replica, write.received)
        if write.done <= until + SLACK:
            return
        finding.figures["late: carried out" if write.carried_out else "late: refused"] += 1
        if write.carried_out:
            finding.late.append(write)
        if write.received <= until + SLACK:
            return  # only the API server took its time
        if until == 0.0 or not self.excuse(replica, until, write.done):
            finding.faults.append(
                f"I7: {replica} asked at {write.received:.3f} for {write}. It could believe to lead"
                f" until {write.received - until:.2f} s before, and nothing had held it up"
            )

    def excuse(self, replica: str, since: float, until: float) -> Trouble | None:
        """What could have delayed something of a replica's that was begun in time."""
        for trouble in self.troubles:
            hits = trouble.delays and replica.startswith(trouble.replica)
            if hits and trouble.begin <= until and trouble.end >= since - SLACK:
                return trouble
        return None

    def _judge_ledger(
        self, ledger: Sequence[Event], writers: Mapping[int, str], finding: Finding
    ) -> None:
        """Each epoch has one writer, the one that it names, and none comes back."""
        holders: dict[int, str] = {}
        latest = 0
        for event in ledger:
            assert event.kind is Kind.BINDING_LEDGER
            if event.gone:
                continue
            epoch, holder = event.body["spec"]["epoch"], event.body["spec"]["holder"]
            writer = writers.get(event.revision)
            finding.figures["ledger: author unknown"] += writer is None
            where = f"I7: r{event.revision} of the ledger, epoch {epoch}"
            if epoch < latest:
                finding.faults.append(f"{where}: epoch {latest} had begun")
            if holders.setdefault(epoch, holder) != holder:
                finding.faults.append(f"{where}: {holders[epoch]} and {holder} both name it theirs")
            if writer is not None and writer != holder:
                finding.faults.append(f"{where}: of {holder}, written by {writer}")
            latest = max(latest, epoch)
