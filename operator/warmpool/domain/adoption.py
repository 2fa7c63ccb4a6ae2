"""Servers that are there already, and whether a pool can take them for its own."""

from dataclasses import dataclass, field
from enum import StrEnum

from warmpool.domain.cloud import Server
from warmpool.domain.ids import ServerId


@dataclass(frozen=True, slots=True)
class Existing:
    """A server of the project, whoever built it, with what a template speaks of."""

    server: Server
    flavor_id: str
    image_id: str
    """Empty: it was booted from a volume."""
    key_pair: str
    networks: frozenset[str]
    """Names of the networks that it has addresses in."""
    tags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """About one server."""

    server: ServerId
    name: str
    zone: str
    why_not: str = ""
    """Why the pool cannot take it. Empty: it can."""


class Step(StrEnum):
    """How far a server has come."""

    ADOPTED = "adopted"
    FINISHED = "adopted before, and marked now"
    BEGUN = "the pool's, but not marked yet: run this again"
    """Its WarmVM is there, so the operator takes it for the pool's, mark or no mark."""
    UNTOUCHED = "could be adopted"


@dataclass(slots=True)
class Progress:
    """What was done, and why no more."""

    steps: dict[ServerId, Step] = field(default_factory=dict)
    """Of the servers that were come to."""
    stopped: str = ""
    """What kept it from going on. Empty: all is done."""
