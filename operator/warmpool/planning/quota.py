"""How many VMs a project's quota leaves room for. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

from warmpool.domain.cloud import FlavorSize, Quota, Usage
from warmpool.domain.pools import Headroom


class _Row(NamedTuple):
    """One bound of the quota."""

    what: str
    usage: Usage
    need: int
    promised: int

    @property
    def left(self) -> int | None:
        """Further VMs that it allows. None: any number."""
        if self.usage.limit is None or not self.need:
            return None
        return max(self.usage.limit - self.usage.used - self.promised, 0) // self.need


def headroom(
    quota: Quota, size: FlavorSize, promised: Iterable[FlavorSize], *, ours: int
) -> Headroom:
    """What a quota leaves for VMs of one size.

    Args:
        quota: as it was read.
        size: of one VM.
        promised: sizes of builds on their way that the quota does not count yet.
        ours: servers of this installation in the project; what is used beyond is somebody else's.
    """
    sizes = list(promised)
    rows = (
        _Row("instances", quota.instances, 1, len(sizes)),
        _Row("cores", quota.cores, size.vcpus, sum(s.vcpus for s in sizes)),
        _Row("MB of RAM", quota.ram_mb, size.ram_mb, sum(s.ram_mb for s in sizes)),
    )
    bound = [(row.left, row) for row in rows if row.left is not None]
    if not bound:
        return Headroom(None)
    left, row = min(bound, key=lambda pair: pair[0])
    foreign = max(quota.instances.used - ours, 0)
    others = f", {foreign} servers of the project are not of this installation" if foreign else ""
    used = row.usage.used + row.promised
    text = f"the quota is reached: {used} of {row.usage.limit} {row.what} are used{others}"
    return Headroom(left, text)
