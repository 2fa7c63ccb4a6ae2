"""What a VM wrote on its console, cut down to what an object may hold."""

import re
from typing import Final

from warmpool.api.v1alpha1.vm import MAX_CONSOLE

_ESCAPES: Final = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|[@-Z\\-_])")
_CONTROLS: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_EMPTY_LINES: Final = re.compile(r"\n\s*\n")


def ending(text: str) -> str:
    """The last lines: whole ones as far as they fit, without what moves a terminal's cursor."""
    plain = _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    plain = _EMPTY_LINES.sub("\n", plain).strip()
    if len(plain) <= MAX_CONSOLE:
        return plain
    last = plain[-MAX_CONSOLE:]
    return last.partition("\n")[2] or last
