"""Names of a template against what a cloud has. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from warmpool.api.names import Reason
from warmpool.domain.errors import DependencyMissing

MAX_NEAREST: Final = 3
"""Existing names that a message offers: more than a few help nobody."""
MAX_SHOWN: Final = 80
"""Characters of one such name in a message."""


@dataclass(frozen=True, slots=True, order=True)
class Named:
    """Something of a cloud's that has an id and a name. Names need not be unique."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """One name in a pool's spec."""

    kind: str
    """What it is to name, in words: `flavor`."""
    value: str
    field: str
    """Path in the pool's spec."""
    reason: Reason


def choose(wanted: Wanted, candidates: Iterable[Named]) -> str | None:
    """The id that a name or an id means among the candidates. None: none of them.

    Raises:
        DependencyMissing: several bear the name, and the message lists their ids.
    """
    there = set(candidates)
    if any(c.id == wanted.value for c in there):
        return wanted.value
    ids = sorted(c.id for c in there if c.name == wanted.value)
    if len(ids) > 1:
        raise DependencyMissing(
            f"{wanted.field}: {len(ids)} {wanted.kind}s are named {wanted.value!r}: "
            f"write the id of one instead ({_listed(ids)})",
            reason=wanted.reason,
            field=wanted.field,
        )
    return ids[0] if ids else None


def missing(wanted: Wanted, existing: Iterable[str]) -> DependencyMissing:
    """The error that says what is not there, and what is there that it might have meant."""
    names = sorted({name for name in existing if name})
    near = get_close_matches(wanted.value, names, n=MAX_NEAREST, cutoff=0.5)
    if near:
        remedy = f"did you mean {_listed(near)}?"
    elif names:
        remedy = f"there is {_listed(names)}"
    else:
        remedy = f"these credentials see no {wanted.kind} at all"
    return DependencyMissing(
        f"{wanted.field}: no {wanted.kind} {wanted.value!r} in this project; {remedy}",
        reason=wanted.reason,
        field=wanted.field,
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name[:MAX_SHOWN]) for name in names[:MAX_NEAREST])
    more = len(names) - MAX_NEAREST
    return f"{shown} and {more} more" if more > 0 else shown
