"""A letter as a person reads it: what happened, how often, to what, and where to look. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final

from warmpool.domain.notices import Bundle, Letter, NoticeKind
from warmpool.planning.notices import Due

HEADINGS: Final[Mapping[NoticeKind, str]] = {
    NoticeKind.POOL_STARVING: "Pools without a VM",
    NoticeKind.CREDENTIALS_REFUSED: "Credentials refused",
    NoticeKind.BUILDS_FAILING: "Builds that failed",
    NoticeKind.CLAIM_REFUSED: "Claims refused for want of VMs",
    NoticeKind.LEADER_CHANGED: "The operator",
    NoticeKind.POOL_BUILT_UP: "Pools built up",
}

TEXT: Final = 400
"""Characters of one text."""


def letter(due: Due) -> Letter:
    """Put what is due into words."""
    order = list(NoticeKind)
    bundles = sorted(due.bundles, key=lambda b: (order.index(b.topic.kind), -b.count, b.topic))
    urgent = not due.digest
    return Letter(due.route.name, _title(bundles), "\n".join(_body(due, bundles)), urgent)


def _title(bundles: Sequence[Bundle]) -> str:
    more = f", and {len(bundles) - 1} more" if len(bundles) > 1 else ""
    return f"warmpool: {_headline(bundles[0])}{more}"


def _headline(bundle: Bundle) -> str:
    topic, count = bundle.topic, bundle.count
    why = f" ({topic.reason})" if topic.reason else ""
    match topic.kind:
        case NoticeKind.POOL_STARVING:
            return f"{topic.subject} has no VM ready{why}"
        case NoticeKind.CREDENTIALS_REFUSED:
            return f"the cloud refuses the credentials of {topic.subject}"
        case NoticeKind.BUILDS_FAILING:
            return f"{topic.subject}: {_some(count, 'build')} failed{why}"
        case NoticeKind.CLAIM_REFUSED:
            return f"{topic.subject}: {_some(count, 'claim')} refused{why}"
        case NoticeKind.LEADER_CHANGED:
            return f"{topic.subject} leads"
        case NoticeKind.POOL_BUILT_UP:  # pragma: no branch - there is no other
            return f"{topic.subject} is built up"


def _body(due: Due, bundles: Iterable[Bundle]) -> Iterable[str]:
    for kind, of_kind in groupby(bundles, key=lambda bundle: bundle.topic.kind):
        yield HEADINGS[kind]
        for bundle in of_kind:
            yield from _entry(bundle)
        yield ""
    if due.dropped:
        yield f"{due.dropped} more pieces of news did not fit: see the history."
        yield ""
    yield "--"
    digest = f"once in {_minutes(due.route.pause.total_seconds())} at most"
    yield f'Sent by the route "{due.route.name}", {digest}, what is urgent at once.'


def _entry(bundle: Bundle) -> Iterable[str]:
    first, last = bundle.first, bundle.last
    until = f" to {last:%H:%M:%S}" if last.replace(microsecond=0) > first else ""
    yield f"  {_headline(bundle)}"
    yield f"    {first:%Y-%m-%d %H:%M:%S}{until} UTC"
    for sample in bundle.samples:
        yield f"    {' '.join(sample.split())[:TEXT]}"
    if len(bundle.samples) > 1 and bundle.count > len(bundle.samples):
        yield f"    ... {bundle.count} in all"
    if (look := _where_to_look(bundle)) is not None:
        yield f"    {look}"


def _where_to_look(bundle: Bundle) -> str | None:
    topic = bundle.topic
    if topic.kind is NoticeKind.LEADER_CHANGED:
        return None
    namespace, _, name = topic.subject.partition(", ")[0].partition("/")
    return f"kubectl -n {namespace} describe warmpool {name}"


def _some(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 60 else f"{seconds:g} seconds"  # noqa: PLR2004 - of a minute
