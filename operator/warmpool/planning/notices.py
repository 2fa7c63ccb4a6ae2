"""What people are told, and when. Pure: an outbox in, an outbox out.

A route gets a digest of all that has gathered, and not two within its pause. What is urgent goes
after seconds, by itself; the same topic again only after the pause.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from warmpool.domain.notices import URGENT, Bundle, Lane, News, Outbox, Route, Topic

URGENT_GATHER: Final = timedelta(seconds=10)
"""That long urgent news waits for more of it."""

SAMPLES: Final = 3
"""Texts of one topic in a letter."""

TOPICS: Final = 200
"""Bundles that wait for one route; beyond that the oldest that is not urgent is dropped."""

RETRY_FIRST: Final = timedelta(seconds=30)
RETRY_MAX: Final = timedelta(minutes=15)
"""Between attempts to send, twice as long each time."""


@dataclass(frozen=True, slots=True)
class Due:
    """A letter is to be sent now."""

    route: Route
    bundles: tuple[Bundle, ...]
    dropped: int
    digest: bool


def add(outbox: Outbox, news: Iterable[News], routes: Iterable[Route] | None) -> Outbox:
    """Take news in. `routes` None: they are not known yet, and it waits for them."""
    unrouted = _joined(outbox.unrouted, map(_bundle, news))
    if routes is None:
        return replace(outbox, unrouted=_bounded(unrouted)[0])
    lanes = {route.name: outbox.lanes.get(route.name, Lane()) for route in routes}
    for route in routes:
        wanted = [bundle for topic, bundle in unrouted.items() if route.wants(topic)]
        if wanted:
            lanes[route.name] = _into(lanes[route.name], wanted)
    return replace(outbox, lanes=lanes, unrouted={})


def due(outbox: Outbox, routes: Iterable[Route], now: datetime) -> list[Due]:
    """The letters to be sent now, one for each route at most."""
    found = []
    for route in routes:
        lane = outbox.lanes.get(route.name, Lane())
        times = _times(lane, route)
        bundles = tuple(lane.pending[topic] for topic, at in sorted(times.items()) if at <= now)
        digest = any(b.topic.kind not in URGENT for b in bundles)
        if digest:  # whoever reads takes all of it along
            bundles = tuple(bundle for _, bundle in sorted(lane.pending.items()))
        if bundles:
            found.append(Due(route, bundles, lane.dropped, digest))
    return found


def wake_at(outbox: Outbox, routes: Iterable[Route]) -> datetime | None:
    """When the next letter is due. None: nothing waits that could be sent."""
    lanes = ((outbox.lanes.get(route.name, Lane()), route) for route in routes)
    return min((at for each in lanes for at in _times(*each).values()), default=None)


def begun(outbox: Outbox, letter: Due) -> Outbox:
    """The letter is on its way: what comes now is for the next one."""
    lane = outbox.lanes[letter.route.name]
    sending = {bundle.topic: bundle for bundle in letter.bundles}
    pending = {topic: b for topic, b in lane.pending.items() if topic not in sending}
    return _with(outbox, letter.route.name, replace(lane, pending=pending, sending=sending))


def sent(outbox: Outbox, letter: Due, now: datetime) -> Outbox:
    """The letter has arrived, as far as can be known."""
    lane = outbox.lanes.get(letter.route.name)
    if lane is None:
        return outbox
    told = {topic: at for topic, at in lane.told.items() if now < at + letter.route.pause}
    told |= {topic: now for topic in lane.sending if topic.kind in URGENT}
    lane = replace(
        lane,
        sending={},
        told=told,
        digest_at=now if letter.digest else lane.digest_at,
        failures=0,
        not_before=None,
        dropped=lane.dropped - letter.dropped,
    )
    return _with(outbox, letter.route.name, lane)


def not_sent(outbox: Outbox, letter: Due, now: datetime) -> Outbox:
    """It could not be sent: it waits, with what has come since, and is tried again."""
    lane = outbox.lanes.get(letter.route.name)
    if lane is None:
        return outbox
    pause = min(RETRY_FIRST * (1 << min(lane.failures, 10)), RETRY_MAX)
    back = replace(_back(lane), failures=lane.failures + 1, not_before=now + pause)
    return _with(outbox, letter.route.name, back)


def resumed(outbox: Outbox) -> Outbox:
    """After a crash: nobody knows whether a letter on its way arrived. Twice rather than never."""
    return replace(outbox, lanes={name: _back(lane) for name, lane in outbox.lanes.items()})


# -- inside -----------------------------------------------------------------------------------


def _times(lane: Lane, route: Route) -> dict[Topic, datetime]:
    """When each bundle is due, if only for itself."""
    if lane.sending:
        return {}
    return {topic: _due_at(bundle, lane, route) for topic, bundle in lane.pending.items()}


def _due_at(bundle: Bundle, lane: Lane, route: Route) -> datetime:
    if bundle.topic.kind in URGENT:
        gathered, before = bundle.first + URGENT_GATHER, lane.told.get(bundle.topic)
    else:
        gathered, before = bundle.first + route.gather, lane.digest_at
    rested = gathered if before is None else before + route.pause
    return max(gathered, rested, lane.not_before or gathered)


def _bundle(news: News) -> Bundle:
    return Bundle(news.topic, news.at, news.at, 1, (news.text,))


def _merged(one: Bundle, two: Bundle) -> Bundle:
    samples = tuple(dict.fromkeys(one.samples + two.samples))[:SAMPLES]
    first, last = min(one.first, two.first), max(one.last, two.last)
    return Bundle(one.topic, first, last, one.count + two.count, samples)


def _joined(into: Mapping[Topic, Bundle], bundles: Iterable[Bundle]) -> dict[Topic, Bundle]:
    found = dict(into)
    for bundle in bundles:
        known = found.get(bundle.topic)
        found[bundle.topic] = bundle if known is None else _merged(known, bundle)
    return found


def _bounded(bundles: Mapping[Topic, Bundle]) -> tuple[dict[Topic, Bundle], int]:
    """What there is room for, and how much news that leaves out."""
    by_worth = sorted(
        bundles.values(), key=lambda b: (b.topic.kind in URGENT, b.last, b.topic), reverse=True
    )
    kept = {bundle.topic for bundle in by_worth[:TOPICS]}
    lost = sum(bundle.count for bundle in by_worth[TOPICS:])
    return {topic: bundle for topic, bundle in bundles.items() if topic in kept}, lost


def _into(lane: Lane, bundles: Iterable[Bundle]) -> Lane:
    pending, lost = _bounded(_joined(lane.pending, bundles))
    return replace(lane, pending=pending, dropped=lane.dropped + lost)


def _back(lane: Lane) -> Lane:
    pending = _joined(lane.sending, lane.pending.values())
    return replace(lane, pending=pending, sending={})


def _with(outbox: Outbox, name: str, lane: Lane) -> Outbox:
    return replace(outbox, lanes={**outbox.lanes, name: lane})
