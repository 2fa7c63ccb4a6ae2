"""A letter as a person gets it."""

from datetime import timedelta

from builders import NOW
from warmpool.domain.notices import News, NoticeKind, Outbox, Route, Topic
from warmpool.planning.letters import letter
from warmpool.planning.notices import add, due

ONCALL = Route("oncall", ("mailto://oncall",))


def a_letter(*news: News) -> str:
    (each,) = due(add(Outbox(), news, [ONCALL]), [ONCALL], NOW + timedelta(hours=1))
    written = letter(each)
    return f"{written.title}\n\n{written.body}\n"


def of(kind: NoticeKind, text: str, reason: str = "", subject: str = "search/data") -> News:
    namespace = "" if kind is NoticeKind.LEADER_CHANGED else "search"
    return News(Topic(kind, namespace, subject, reason), NOW, text)


def test_it_says_what_happened_how_often_and_where_to_look() -> None:
    letter = a_letter(
        of(NoticeKind.POOL_BUILT_UP, "3 of 3 VMs are ready", subject="search/new"),
        of(NoticeKind.LEADER_CHANGED, "leads since 12:00:00 UTC", subject="replica-b"),
        of(NoticeKind.CLAIM_REFUSED, "claim search/logs-7 of 15 VMs", "NotEnoughRacks"),
        of(NoticeKind.CREDENTIALS_REFUSED, "the cloud says 401", subject="search/old"),
        of(NoticeKind.POOL_STARVING, "no VM is ready", "QuotaExceeded"),
        *(of(NoticeKind.BUILDS_FAILING, f"zone az{n}: none", "NoValidHost") for n in range(500)),
    )
    assert (
        letter
        == f"""\
warmpool: search/data has no VM ready (QuotaExceeded), and 5 more

Pools without a VM
  search/data has no VM ready (QuotaExceeded)
    {NOW:%Y-%m-%d %H:%M:%S} UTC
    no VM is ready
    kubectl -n search describe warmpool data

Credentials refused
  the cloud refuses the credentials of search/old
    {NOW:%Y-%m-%d %H:%M:%S} UTC
    the cloud says 401
    kubectl -n search describe warmpool old

Builds that failed
  search/data: 500 builds failed (NoValidHost)
    {NOW:%Y-%m-%d %H:%M:%S} UTC
    zone az0: none
    zone az1: none
    zone az2: none
    ... 500 in all
    kubectl -n search describe warmpool data

Claims refused for want of VMs
  search/data: 1 claim refused (NotEnoughRacks)
    {NOW:%Y-%m-%d %H:%M:%S} UTC
    claim search/logs-7 of 15 VMs
    kubectl -n search describe warmpool data

The operator
  replica-b leads
    {NOW:%Y-%m-%d %H:%M:%S} UTC
    leads since 12:00:00 UTC

Pools built up
  search/new is built up
    {NOW:%Y-%m-%d %H:%M:%S} UTC
    3 of 3 VMs are ready
    kubectl -n search describe warmpool new

--
Sent by the route "oncall", once in 15 minutes at most, what is urgent at once.
"""
    )


def test_what_happened_over_a_while_says_from_when_to_when() -> None:
    first = of(NoticeKind.BUILDS_FAILING, "none")
    last = News(first.topic, NOW + timedelta(seconds=59), "a\nlong  text" + "!" * 500)
    letter = a_letter(first, last)
    assert f"{NOW:%H:%M:%S} to {last.at:%H:%M:%S} UTC" in letter
    assert max(map(len, letter.splitlines())) < 410
    assert "a long text!" in letter


def test_a_short_pause_is_told_in_seconds() -> None:
    quick = Route("quick", ("x://",), pause=timedelta(seconds=30))
    outbox = add(Outbox(), [of(NoticeKind.BUILDS_FAILING, "none")], [quick])
    (each,) = due(outbox, [quick], NOW + timedelta(hours=1))
    assert "once in 30 seconds at most" in letter(each).body
