"""Racks that the names of hosts tell: the only module that knows re2.

RE2 takes time in proportion to the name. A pattern of Python's own can take for ever, and whoever
may write a Secret could stop the operator with it.
"""

from typing import Any, Final

import re2

from warmpool.domain.racks import Host, Told
from warmpool.effects.racks.names import filled, rack_name

ALWAYS: Final = 86_400.0
"""Seconds that an answer is good for: it never changes."""


def compiled_pattern(pattern: str) -> Any:
    """The pattern, ready.

    Raises:
        ValueError: it is none.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else b""
        text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise ValueError(f"no regular expression as RE2 has them: {text[:200]}") from None


class PatternSource:
    """Racks out of the names of hosts."""

    def __init__(self, name: str, pattern: str, rack: str) -> None:
        """`rack` is a template over the pattern's groups."""
        self.name = name
        self.refresh = ALWAYS
        self._pattern = compiled_pattern(pattern)
        self._rack = rack

    async def ask(self, hosts: tuple[Host, ...]) -> Told:
        return Told({host.name: self._read(host.name) for host in hosts})

    def _read(self, host: str) -> str:
        found = self._pattern.fullmatch(host)
        if found is None:
            return ""
        groups = {key: value or "" for key, value in found.groupdict().items()}
        return rack_name(filled(self._rack, groups)) or ""

    async def close(self) -> None:
        """There is nothing to free."""
