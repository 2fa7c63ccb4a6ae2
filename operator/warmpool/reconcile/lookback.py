"""Pools that nothing is taken from or changed in until their VMs were held against Nova.

Where nobody has led for a while the API server may have been restored from a backup meanwhile, and
a VM that it calls free may be in use. Nova knows: the mark of its claim stands on the server.
"""

from collections.abc import Callable, Iterable

from warmpool.domain.ids import Ref


class LookBack:
    """The pools of one term of leadership that are still to be looked at."""

    def __init__(self, pools: Iterable[Ref], went_on: Callable[[], None]) -> None:
        """`went_on` is called when there is one less."""
        self._pools = set(pools)
        self._went_on = went_on

    @property
    def over_everywhere(self) -> bool:
        return not self._pools

    def waits(self, pool: Ref) -> bool:
        """Whether a pool is to be looked at first."""
        return pool in self._pools

    def over(self, pool: Ref) -> None:
        """Its VMs were held against Nova, or it is gone."""
        if pool in self._pools:
            self._pools.discard(pool)
            self._went_on()
