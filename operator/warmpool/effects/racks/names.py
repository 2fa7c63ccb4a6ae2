"""Names of hosts and racks, and templates that are made of them. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from warmpool.domain.racks import Host

MAX_RACK: Final = 255
"""Characters of a rack's name: the width of the field in a WarmVM."""

HOST_FIELDS: Final = ("host", "short")
"""What a template may say of a host: its name, and its name up to the first dot."""

_FIELD: Final = re.compile(r"\{([^{}]*)\}")


def checked_template(text: str, fields: Iterable[str]) -> str:
    """The template, if it names nothing but these fields.

    Raises:
        ValueError: it names something else, or has a brace too few.
    """
    known = tuple(fields)
    named = _FIELD.findall(text)
    for name in named:
        if name not in known:
            there = ", ".join(f"{{{field}}}" for field in known) or "nothing"
            raise ValueError(f"{{{name}}} means nothing here: there is {there}")
    if {"{", "}"} & set(_FIELD.sub("", text)):
        raise ValueError("a brace is never closed, or never opened")
    return text


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with its fields."""
    return _FIELD.sub(lambda found: values[found[1]], template)


def of_host(host: Host) -> dict[str, str]:
    """The fields of a host."""
    return {"host": host.name, "short": host.name.partition(".")[0]}


def rack_name(value: object) -> str | None:
    """The name of a rack out of foreign data. Empty: there is none. None: this cannot be one."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value).strip()
    return text if len(text) <= MAX_RACK and text.isprintable() else None
