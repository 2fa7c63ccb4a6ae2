"""What a server group bounds: its members, and one of them on each hypervisor. Pure.

Nova places a build before those that are under way count where they stand, so of two at the same
time one is likely to fail. Hence builds that it places go one after the other. Those that are aimed
at hypervisors of their own do not meet, and go side by side.
"""

from collections.abc import Iterable
from dataclasses import replace

from warmpool.domain.pools import UNDER_WAY, PoolFacts, Site, VmView, heading_for
from warmpool.planning.layout import HERE
from warmpool.planning.sizing import members


def taken(facts: PoolFacts) -> frozenset[str]:
    """Hypervisors that have a VM of the pool, or will have one."""
    standing = (mark[-1] for mark, n in facts.tally.items() if mark[0] == HERE and n > 0)
    leaving = (mark[-1] for mark, n in facts.tally.items() if mark[0] == "left at" and n > 0)
    return frozenset([*standing, *leaving]) - {""}


def apart(facts: PoolFacts, sites: Iterable[Site]) -> list[Site]:
    """Those of the sites that the group leaves, with room for one VM each."""
    held = taken(facts)
    return [replace(site, room=1) for site in sites if site.place.hypervisor not in held]


def at_once(facts: PoolFacts, number: int) -> int:
    """How many of so many new builds may begin now, if Nova chooses their places."""
    homeless = sum(facts.creating.values()) - sum(facts.aiming.values())
    homeless += sum(view.vm.phase in UNDER_WAY and _is_homeless(facts, view) for view in facts.vms)
    return min(number, max(1 - homeless, 0))


class Turns:
    """Has VMs that wait for their servers built one after the other, where it matters."""

    def __init__(self, facts: PoolFacts) -> None:
        self._facts = facts
        self._free = not any(
            view.vm.phase in UNDER_WAY
            and (view.server is not None or view.busy)
            and _is_homeless(facts, view)
            for view in facts.vms
        )

    def takes(self, view: VmView) -> bool:
        """Whether it is this one's turn; it has had it then."""
        if not self._facts.group or not _is_homeless(self._facts, view):
            return True
        free, self._free = self._free, False
        return free


def _is_homeless(facts: PoolFacts, view: VmView) -> bool:
    """It is not known where it will stand."""
    return not heading_for(view, facts.places).hypervisor


def why_full(facts: PoolFacts) -> str:
    """What bounds the pool where its group may have no more members."""
    hint, most = facts.pool.spec.template.group_hint, facts.survey.group_members
    return (
        f"server group {hint!r} has {members(facts)} members, and may have {most}: raise the"
        " project's quota server_group_members, or release claimed VMs"
    )


def why_no_room(facts: PoolFacts) -> str:
    """What bounds the pool where each hypervisor has a VM of it."""
    hint, hosts = facts.pool.spec.template.group_hint, len(taken(facts))
    return (
        f"no hypervisor is left for server group {hint!r}, which has a VM on {hosts} of them and"
        " takes one on each: lower replicas, release claimed VMs, or add hosts"
    )
