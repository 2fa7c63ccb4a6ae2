"""What several sources say of racks, brought together. Pure."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from warmpool.api.names import Reason
from warmpool.domain.racks import RackReport, Settled, Telling

MAX_NAMED: Final = 3
"""Hosts or sources that a message names; the rest it counts."""


def settle(
    chain: Sequence[Telling],
    hosts: Iterable[str],
    recalled: Mapping[str, str],
    *,
    doubted: bool = False,
) -> Settled:
    """The rack of each host: of the first source in the chain that names one.

    Args:
        chain: the sources, the weightiest first.
        hosts: all that matter.
        recalled: what was known before the sources were asked. It counts until every source that
            comes before the one that would be followed has answered once, so that nobody is moved
            to another rack because a source is slow to start.
        doubted: whether it counts as well where a source that comes before the one that would be
            followed, or all of them, say that they know of no rack: they have not said so for long
            enough.
    """
    racks: dict[str, str] = {}
    pending: set[str] = set()
    contradictions: list[str] = []
    for host in sorted(set(hosts)):
        said = [(telling.source, telling.racks[host]) for telling in chain if host in telling.racks]
        named = [(source, rack) for source, rack in said if rack]
        if _waits(chain, host) or (doubted and not (said and said[0][1])):
            pending.add(host)
            if meanwhile := recalled.get(host) or (named[0][1] if named else ""):
                racks[host] = meanwhile
        else:
            racks[host] = named[0][1] if named else ""
        if len({rack for _, rack in named}) > 1:
            contradictions.append(_contradiction(host, named))
    return Settled(racks, frozenset(pending), tuple(contradictions))


def _waits(chain: Sequence[Telling], host: str) -> bool:
    """Whether a source that counts more than the first that names a rack is yet to answer."""
    for telling in chain:
        if host not in telling.racks:
            return True
        if telling.racks[host]:
            return False
    return False


def _contradiction(host: str, named: Sequence[tuple[str, str]]) -> str:
    (first, rack), others = named[0], named[1:]
    source, other = next((s, r) for s, r in others if r != rack)
    return f"{host}: {first} says {rack!r}, {source} {other!r}"


def is_doubtful(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether a source has forgotten most of what it knew of the hosts that it was asked about.

    An inventory that is being restored answers, and answers nothing: it is asked once more.
    """
    known = [host for host, rack in before.items() if rack and host in now]
    forgotten = [host for host in known if not now[host]]
    return 2 * len(forgotten) > len(known)


def host_id(project: str, host: str) -> str:
    """What Nova tells the members of a project instead of a host's name (`hostId`)."""
    return hashlib.sha224((project + host).encode()).hexdigest()


def finding(report: RackReport) -> tuple[bool | None, Reason, str]:
    """Whether racks are known, why or why not, and that in words."""
    for holds, reason, text in _findings(report):
        if text:
            return holds, reason, text
    text = f"the racks of all {report.hosts} hosts are known"
    return True, Reason.RACKS_KNOWN, text


def _findings(report: RackReport) -> Iterator[tuple[bool | None, Reason, str]]:
    """What might be said, the weightiest first; empty texts say nothing."""
    yield False, Reason.RACK_CONFIG_INVALID, report.wrong
    yield False, Reason.INVENTORY_UNAVAILABLE, _unlisted(report)
    yield None, Reason.RACKS_UNKNOWN, report.hidden
    yield None, Reason.RACKS_UNKNOWN, "" if report.looked else "not looked at yet"
    yield False, Reason.RACK_SOURCE_SILENT, _silence(report)
    yield False, Reason.RACKS_CONTRADICT, _listed(report.contradictions, "; ")
    unknown = _listed(report.unknown, ", ")
    count = f"{len(report.unknown)} of {report.hosts} hosts are in no rack that a source knows"
    yield False, Reason.RACKS_UNKNOWN, f"{count}: {unknown}" if unknown else ""


def _unlisted(report: RackReport) -> str:
    if not report.unlisted:
        return ""
    return f"the hosts cannot be listed: {report.unlisted}; what was known before stands"


def _silence(report: RackReport) -> str:
    if not report.silent:
        return ""
    return f"{_listed(report.silent, '; ')}; what was known before stands"


def _listed(things: Sequence[str], between: str) -> str:
    shown = between.join(things[:MAX_NAMED])
    more = len(things) - MAX_NAMED
    return f"{shown} and {more} more" if more > 0 else shown
