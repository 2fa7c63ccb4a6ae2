"""Routes as people write them, and what they are told when they write them wrong."""

import re
from collections.abc import Mapping
from datetime import timedelta

import pytest
import yaml

from warmpool.domain.errors import ClusterUnavailable, NotFound
from warmpool.domain.ids import Ref
from warmpool.domain.notices import NoticeKind
from warmpool.effects.notice_routes import SecretRoutes, parse
from warmpool.ports.notices import RoutesUnknown
from warmpool.tools.crds import ROOT

GOOD = b"""
routes:
  oncall:
    to:
    - mailtos://me:hush@smtp.example.org?to=oncall@example.org
  search:
    to: [slack://a/b/c]
    kinds: [BuildsFailing]
    namespaces: [search-*]
    gather: 30s
    pause: 1h
"""


def secret(data: Mapping[str, bytes] | Exception) -> SecretRoutes:
    async def read(ref: Ref) -> Mapping[str, bytes]:
        assert ref == Ref("warmpool-system", "notices")
        if isinstance(data, Exception):
            raise data
        return data

    return SecretRoutes(read, Ref("warmpool-system", "notices"))


async def test_routes_are_read() -> None:
    oncall, search = await secret({"notices.yaml": GOOD}).read()
    assert (oncall.name, oncall.kinds) == ("oncall", frozenset(NoticeKind))
    assert (oncall.gather, oncall.pause) == (timedelta(minutes=2), timedelta(minutes=15))
    assert search.kinds == {NoticeKind.BUILDS_FAILING}
    assert search.namespaces == ("search-*",)
    assert (search.gather, search.pause) == (timedelta(seconds=30), timedelta(hours=1))


async def test_without_the_secret_there_are_none() -> None:
    assert await secret(NotFound("none")).read() == ()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (ClusterUnavailable("503"), "503"),
        ({"other": b""}, "has no key 'notices.yaml'"),
        ({"notices.yaml": b"routes: {a: {to: []}}"}, "routes.a.to: List should have at least 1"),
        ({"notices.yaml": b"routes: {a: {to: [x], pause: 5}}"}, "routes.a.pause: .*90s, 15m, 1h"),
        ({"notices.yaml": b"routes: {a: {to: [x], kinds: [Hush]}}"}, "routes.a.kinds.0: Input"),
        ({"notices.yaml": b"routes: {a: {urls: [x]}}"}, "routes.a.urls: Extra inputs"),
        ({"notices.yaml": b"routes: [\n"}, "not YAML, line 2"),
    ],
)
async def test_what_is_wrong_is_told(data: Mapping[str, bytes] | Exception, says: str) -> None:
    with pytest.raises(RoutesUnknown, match=says):
        await secret(data).read()


def test_no_address_is_told_with_it() -> None:
    with pytest.raises(ValueError, match=r"routes\.oncall\.gather") as wrong:
        parse(GOOD.replace(b"oncall:\n", b"oncall:\n    gather: hush\n"))
    assert "hush" not in str(wrong.value)


def test_the_example_of_the_docs_is_one() -> None:
    text = (ROOT / "docs" / "notices.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    routes = parse(yaml.safe_load(example)["stringData"]["notices.yaml"].encode())
    assert [route.name for route in routes] == ["oncall", "search-team"]


def test_a_route_does_not_show_its_addresses() -> None:
    assert "hush" not in repr(parse(GOOD))
