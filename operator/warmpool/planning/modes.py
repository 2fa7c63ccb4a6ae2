"""What the short forms of placement mean as limits."""

from collections.abc import Iterable, Mapping
from typing import Final

from warmpool.api.v1alpha1.claim import Mode
from warmpool.domain.claims import Ask, Domain, Limit

APART: Final[Mapping[Mode, tuple[Domain, ...]]] = {
    Mode.BEST_EFFORT: (),
    Mode.RACK_AWARE: (Domain.RACK,),
    Mode.HYPERVISOR_AWARE: (Domain.HYPERVISOR,),
}
"""Levels at which each mode keeps all VMs of a claim apart."""


def mode_limits(mode: Mode, asks: Iterable[Ask]) -> tuple[Limit, ...]:
    """The limits of a mode, over all VMs of all asks."""
    names = frozenset(ask.name for ask in asks)
    return tuple(Limit(level, names, max_per_domain=1) for level in APART[mode])
