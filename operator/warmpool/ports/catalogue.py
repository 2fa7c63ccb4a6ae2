"""The catalogue: what names mean."""

from collections.abc import Callable
from typing import Protocol

from warmpool.api.v1alpha1.flavor import VMFlavorSpec
from warmpool.domain.catalogue import Entry, Found

Changed = Callable[[str], None]
"""Told the name of an entry that means something else now, or nothing any more."""

ReadSpec = Callable[[str, VMFlavorSpec], Entry | str]
"""Of name and spec, where nothing but us enforces rules: the entry, or what is wrong with it."""


class Catalogue(Protocol):
    """Entries by name, kept in memory: asking takes no time and never fails.

    What cannot be read, or is malformed, leaves the last good value in force, and says so.
    """

    def find(self, name: str) -> Found:
        """What a name means now."""
        ...

    def listen(self, changed: Changed) -> Callable[[], None]:
        """Be told of changes; the answer is what ends that."""
        ...
