"""Who may see metrics and the page beyond loopback: whom the API server knows and lets."""

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest

from doubles.fleet import a_fleet
from doubles.history import MemoryHistory
from warmpool.domain.errors import ClusterUnavailable
from warmpool.handlers import access, scrapes
from warmpool.handlers.access import KEPT, REMEMBERED, SCRAPES, SEES_ALL, Guard, Verdict, token_of
from warmpool.handlers.page import HEADERS, Page
from warmpool.sim.clock import LoopClock

ANYWHERE = "0.0.0.0"  # noqa: S104 - what is tested is who may ask there


class Kubernetes:
    """Knows tokens, and what their owners may."""

    def __init__(self, **rights: set[str]) -> None:
        """Rights by token: resources that may be listed, paths that may be read."""
        self.rights = rights
        self.up = True
        self.asked: list[str] = []

    async def review(self, group: str, kind: str, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append(kind)
        await asyncio.sleep(0)
        if not self.up:
            raise ClusterUnavailable("no answer")
        if kind == "TokenReview":
            assert group == "authentication.k8s.io"
            known = spec["token"] in self.rights
            user = {"username": spec["token"], "groups": ["people"], "uid": "1"}
            return {"authenticated": True, "user": user} if known else {"error": "unknown"}
        assert group == "authorization.k8s.io"
        assert (kind, spec["groups"]) == ("SubjectAccessReview", ["people"])
        wanted = (
            spec.get("resourceAttributes", {}).get("resource")
            or (spec["nonResourceAttributes"]["path"])
        )
        return {"allowed": wanted in self.rights[spec["user"]]}


ALL = {"warmpools", "vmclaims", "warmvms"}


def a_kubernetes() -> Kubernetes:
    return Kubernetes(boss=ALL, claimant={"warmpools", "vmclaims"}, prometheus={"/metrics"})


def guard(kubernetes: Kubernetes) -> Guard:
    return Guard(kubernetes, LoopClock(), SEES_ALL)


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("token", "verdict"),
    [
        ("boss", Verdict.MAY),
        ("claimant", Verdict.MAY_NOT),
        ("prometheus", Verdict.MAY_NOT),
        ("stranger", Verdict.UNKNOWN),
        ("", Verdict.UNKNOWN),
        ("x" * 20_000, Verdict.UNKNOWN),
    ],
    ids=lambda case: str(case)[:12],
)
async def test_who_may_list_everything_is_let_in(token: str, verdict: Verdict) -> None:
    assert await guard(a_kubernetes()).judge(token) is verdict


@pytest.mark.looptime
async def test_metrics_need_their_own_right() -> None:
    under = Guard(a_kubernetes(), LoopClock(), SCRAPES)
    assert await under.judge("prometheus") is Verdict.MAY
    assert await under.judge("boss") is Verdict.MAY_NOT


@pytest.mark.looptime
async def test_an_answer_holds_for_a_minute_and_no_longer() -> None:
    kubernetes = a_kubernetes()
    under = guard(kubernetes)
    for _ in range(5):
        assert await under.judge("boss") is Verdict.MAY
    assert len(kubernetes.asked) == 4, "whose it is, and three rights"
    kubernetes.rights["boss"] = set()
    await asyncio.sleep(KEPT + 1)
    assert await under.judge("boss") is Verdict.MAY_NOT


@pytest.mark.looptime
async def test_strangers_take_no_memory_for_good() -> None:
    under = guard(a_kubernetes())
    for number in range(REMEMBERED + 50):
        await under.judge(f"stranger-{number}")
    assert len(under._known) == REMEMBERED


@pytest.mark.looptime
async def test_no_answer_is_kept_of_an_api_server_that_is_away() -> None:
    kubernetes = a_kubernetes()
    under = guard(kubernetes)
    kubernetes.up = False
    with pytest.raises(ClusterUnavailable):
        await under.judge("boss")
    kubernetes.up = True
    assert await under.judge("boss") is Verdict.MAY


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Basic " + base64.b64encode(b"anybody:a:b").decode(), "a:b"),
        ("Basic not base64", ""),
        ("Basic " + base64.b64encode(b"\xff\xfe").decode(), ""),
        ("Negotiate abc", ""),
        ("", ""),
    ],
)
def test_a_token_comes_as_bearer_or_as_a_password(header: str, token: str) -> None:
    assert token_of(header) == token


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("x", False)],  # noqa: S104
)
def test_what_only_this_machine_reaches(address: str, local: bool) -> None:
    assert access.is_loopback(address) is local


async def ask(url: str, token: str | None) -> tuple[int, Mapping[str, str]]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, dict(answer.headers)


async def test_the_page_beyond_loopback_is_for_whom_kubernetes_lets() -> None:
    kubernetes = a_kubernetes()
    page = Page(a_fleet(2, 20), MemoryHistory(), LoopClock(), "replica-a", lambda: True)
    async with page.serving(kubernetes, ANYWHERE, 0) as served:
        url = served.replace(ANYWHERE, "127.0.0.1")
        for path in ("", "app.js", "api/now", "api/live", "api/pools/search/pool-1", "no-such"):
            status, headers = await ask(url + path, None)
            assert status == 401, path
            assert headers["WWW-Authenticate"].startswith("Basic ")
            assert headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]
            assert (await ask(url + path, "claimant"))[0] == 403, path
        assert (await ask(f"{url}api/now", "boss"))[0] == 200
        kubernetes.up = False
        assert (await ask(f"{url}api/now", "another"))[0] == 503


async def test_metrics_beyond_loopback_are_for_whom_kubernetes_lets() -> None:
    async with scrapes.serving(
        lambda: lambda: b"up 1\n", a_kubernetes(), LoopClock(), ANYWHERE, 0
    ) as served:
        url = served.replace(ANYWHERE, "127.0.0.1")
        assert [(await ask(url, token))[0] for token in (None, "boss", "prometheus")] == [
            401,
            403,
            200,
        ]


async def test_metrics_on_loopback_ask_nobody() -> None:
    kubernetes = a_kubernetes()
    async with scrapes.serving(lambda: lambda: b"", kubernetes, LoopClock(), "127.0.0.1", 0) as url:
        assert (await ask(url, None))[0] == 200
    assert kubernetes.asked == []
