"""Routes of notices, read from a Secret: addresses hold passwords.

Only the Secret of the operator's own namespace is read. Whoever may write an address has the
operator connect to it, so it is not for everybody who has a namespace.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from warmpool.domain.errors import ClusterError, NotFound
from warmpool.domain.ids import Ref
from warmpool.domain.notices import GATHER, PAUSE, NoticeKind, Route
from warmpool.ports.notices import RoutesUnknown

KEY: Final = "notices.yaml"

ReadSecret = Callable[[Ref], Awaitable[Mapping[str, bytes]]]

_UNITS: Final = {"s": 1, "m": 60, "h": 3600}


def _span(value: object) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})([smh])", str(value))
    if found is None:
        raise ValueError("a span is a number and s, m or h: 90s, 15m, 1h")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


Span = Annotated[timedelta, BeforeValidator(_span)]


class _Route(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    to: list[str] = Field(min_length=1, max_length=20)
    kinds: list[NoticeKind] = Field(default=list(NoticeKind), min_length=1)
    namespaces: list[str] = Field(default=["*"], min_length=1)
    gather: Span = GATHER
    pause: Span = PAUSE


class _Notices(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    routes: dict[str, _Route]


class SecretRoutes:
    """`Routes` in a Secret. None where there is no such Secret: then nobody is told anything."""

    def __init__(self, read: ReadSecret, secret: Ref) -> None:
        self._read = read
        self._secret = secret

    async def read(self) -> Sequence[Route]:
        try:
            data = await self._read(self._secret)
        except NotFound:
            return ()
        except ClusterError as error:
            raise RoutesUnknown(f"Secret {self._secret}: {error}") from error
        if KEY not in data:
            raise RoutesUnknown(f"Secret {self._secret} has no key {KEY!r}: add it")
        try:
            return parse(data[KEY])
        except ValueError as error:
            raise RoutesUnknown(f"Secret {self._secret}, {KEY}: {error}") from error


def parse(text: bytes) -> tuple[Route, ...]:
    """Routes, by name.

    Raises:
        ValueError: what is wrong, and where; no value is told, for it may be a password.
    """
    try:
        read = _Notices.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ValueError(f"this is not YAML{where}") from None
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ValueError("; ".join(wrong)) from None
    return tuple(
        Route(
            name,
            tuple(route.to),
            frozenset(route.kinds),
            tuple(route.namespaces),
            route.gather,
            route.pause,
        )
        for name, route in sorted(read.routes.items())
    )
