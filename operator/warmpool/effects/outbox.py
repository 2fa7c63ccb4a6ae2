"""The outbox of notices in one small file, replaced as a whole and synced. No address is in it."""

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from warmpool.domain.notices import Bundle, Lane, Mood, Outbox, Topic
from warmpool.ports.notices import OutboxUnavailable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Lane:
    pending: tuple[Bundle, ...]
    sending: tuple[Bundle, ...]
    told: tuple[tuple[Topic, datetime], ...]
    digest_at: datetime | None
    failures: int
    not_before: datetime | None
    dropped: int


@dataclass(frozen=True, slots=True)
class _Stored:
    """JSON has no topics for keys."""

    lanes: dict[str, _Lane] = field(default_factory=dict)
    unrouted: tuple[Bundle, ...] = ()
    moods: dict[str, Mood] = field(default_factory=dict)


_ADAPTER: Final = TypeAdapter(_Stored)


class FileBox:
    """A `Box` in a file; in memory where there is none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    async def load(self) -> Outbox:
        return Outbox() if self._path is None else await asyncio.to_thread(_load, self._path)

    async def save(self, outbox: Outbox) -> None:
        if self._path is None:
            return
        try:
            await asyncio.to_thread(_save, self._path, to_json(outbox))
        except OSError as error:
            raise OutboxUnavailable(f"{self._path}: {error.strerror or error}") from error


def to_json(outbox: Outbox) -> bytes:
    """As it stands in the file."""
    lanes = {name: _stored(lane) for name, lane in outbox.lanes.items()}
    unrouted = tuple(outbox.unrouted.values())
    return _ADAPTER.dump_json(_Stored(lanes, unrouted, dict(outbox.moods)))


def from_json(text: bytes) -> Outbox:
    """What `to_json` was given.

    Raises:
        ValueError: it is not one that this version knows.
    """
    stored = _ADAPTER.validate_json(text)
    lanes = {name: _lane(lane) for name, lane in stored.lanes.items()}
    return Outbox(lanes, _by_topic(stored.unrouted), stored.moods)


def _stored(lane: Lane) -> _Lane:
    return _Lane(
        tuple(lane.pending.values()),
        tuple(lane.sending.values()),
        tuple(lane.told.items()),
        lane.digest_at,
        lane.failures,
        lane.not_before,
        lane.dropped,
    )


def _lane(stored: _Lane) -> Lane:
    return Lane(
        _by_topic(stored.pending),
        _by_topic(stored.sending),
        dict(stored.told),
        stored.digest_at,
        stored.failures,
        stored.not_before,
        stored.dropped,
    )


def _by_topic(bundles: tuple[Bundle, ...]) -> Mapping[Topic, Bundle]:
    return {bundle.topic: bundle for bundle in bundles}


def _load(path: Path) -> Outbox:
    try:
        return from_json(path.read_bytes())
    except FileNotFoundError:
        return Outbox()
    except OSError as error:
        log.error("the outbox of notices cannot be read: %s", error)  # noqa: TRY400 - it says why
        return Outbox()
    except ValueError as error:
        aside = path.with_name(path.name + ".broken")
        log.error("the outbox of notices is broken, and set aside as %s: %s", aside, error)  # noqa: TRY400
        path.replace(aside)
        return Outbox()


def _save(path: Path, text: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
