"""What the adapter makes of Elasticsearch's answers, from a server that gives them as told."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from doubles.history import a_build, a_history
from doubles.silent import ends_within, silent_server
from warmpool.domain.history import Record, RecordKind
from warmpool.effects.elastic import TIMEOUT, ElasticHistory, ElasticLogin
from warmpool.effects.elastic_documents import document, mappings
from warmpool.ports.history import HistoryUnavailable, Wanted

Answer = Callable[[str, str, str], tuple[int, Any]]
"""Method, path and body: to a status and what is answered."""


class Elastic:
    """An Elasticsearch that accepts all, but for what it is told to answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.headers: list[str] = []
        self.answer: Answer = lambda _method, _path, _body: (0, None)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.text()
        self.asked.append((request.method, request.path, body))
        self.headers.append(request.headers.get("Authorization", ""))
        status, answer = self.answer(*self.asked[-1])
        if not status:
            status, answer = 200, _usual(body)
        return web.json_response(
            answer, status=status, headers={"X-Elastic-Product": "Elasticsearch"}
        )

    def batches(self) -> list[int]:
        """How many records each bulk brought."""
        return [
            body.count('"create"')
            for method, path, body in self.asked
            if path.endswith("_bulk") and method in ("PUT", "POST")
        ]


def _usual(body: str) -> Any:
    lines = [json.loads(line) for line in body.splitlines() if line.startswith('{"create"')]
    return {"items": [{"create": {"_id": line["create"]["_id"], "status": 201}} for line in lines]}


@pytest.fixture
async def elastic() -> AsyncIterator[tuple[Elastic, str]]:
    served = Elastic()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", served.handle)
    async with TestServer(app) as server:
        yield served, str(server.make_url("")).rstrip("/")


def opened(url: str, **how: Any) -> ElasticHistory:
    return ElasticHistory(ElasticLogin((url,), **how), "history", max_age=None)


async def test_the_template_comes_first_and_once(elastic: tuple[Elastic, str]) -> None:
    served, url = elastic
    history = opened(url)
    for n in range(3):
        await history.append([a_build(n)])
    await history.close()
    paths = [path for _, path, _ in served.asked]
    assert paths == ["/_index_template/history", *["/history/_bulk"] * 3]
    template = json.loads(served.asked[0][2])
    assert template["data_stream"] == {}
    assert template["index_patterns"] == ["history"]


async def test_nothing_is_written_without_the_template(elastic: tuple[Elastic, str]) -> None:
    """A plain index would come into being, and stand in the data stream's way."""
    served, url = elastic
    served.answer = lambda method, _path, _body: (403 if method == "PUT" else 404, {"error": "no"})
    history = opened(url)
    with pytest.raises(HistoryUnavailable, match="403"):
        await history.append([a_build()])
    await history.close()
    assert not served.batches()


async def test_a_template_that_somebody_else_has_put_will_do(elastic: tuple[Elastic, str]) -> None:
    served, url = elastic
    served.answer = lambda method, path, _body: (
        (403, {"error": "no"}) if method == "PUT" and "_template" in path else (0, None)
    )
    history = opened(url)
    assert list(await history.append([a_build()])) == []
    await history.close()
    assert served.batches() == [1]


def item(status: int, why: str = "x") -> dict[str, Any]:
    error = {"error": {"type": why, "reason": "because"}} if status >= 400 else {}
    return {"create": {"_id": "some", "status": status, **error}}


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_one_record_that_could_not_be_taken_now_has_all_brought_again(
    elastic: tuple[Elastic, str], status: int
) -> None:
    served, url = elastic
    served.answer = lambda _method, path, _body: (
        (200, {"items": [item(201), item(status)]}) if "_bulk" in path else (0, None)
    )
    history = opened(url)
    with pytest.raises(HistoryUnavailable, match="because"):
        await history.append([a_build(1), a_build(2)])
    await history.close()


async def test_what_is_there_already_is_kept_and_what_is_wrong_is_refused(
    elastic: tuple[Elastic, str],
) -> None:
    served, url = elastic
    answer = {"items": [item(201), item(409), item(400, "mapper_parsing_exception")]}
    served.answer = lambda _m, path, _b: (200, answer) if "_bulk" in path else (0, None)
    history = opened(url)
    (refused,) = await history.append([a_build(n) for n in range(3)])
    assert refused.why == "mapper_parsing_exception: because"
    await history.close()


async def test_a_batch_that_is_too_large_is_halved(elastic: tuple[Elastic, str]) -> None:
    served, url = elastic
    served.answer = lambda _m, path, body: (
        (413, {"error": "too large"})
        if "_bulk" in path and body.count('"create"') > 3
        else (0, None)
    )
    history = opened(url)
    assert list(await history.append([a_build(n) for n in range(10)])) == []
    await history.close()
    assert sum(n for n in served.batches() if n <= 3) == 10


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 503])
async def test_whatever_is_answered_to_a_batch_it_may_be_tried_again(
    elastic: tuple[Elastic, str], status: int
) -> None:
    served, url = elastic
    body = {"error": {"reason": "outer", "caused_by": {"reason": "inner"}}}
    served.answer = lambda _m, path, _b: (status, body) if "_bulk" in path else (0, None)
    history = opened(url)
    with pytest.raises(HistoryUnavailable, match=f"{status} inner"):
        await history.append([a_build()])
    await history.close()


async def test_an_elasticsearch_that_is_not_there_is_unavailable() -> None:
    history = opened("http://127.0.0.1:9")
    with pytest.raises(HistoryUnavailable):
        await history.append([a_build()])
    with pytest.raises(HistoryUnavailable):
        await history.find(Wanted())
    await history.close()


@pytest.mark.parametrize(
    ("how", "sent"),
    [
        ({"api_key": "a-key"}, "ApiKey a-key"),
        ({"user": "me", "password": "secret"}, "Basic bWU6c2VjcmV0"),
        ({}, ""),
    ],
)
async def test_it_logs_in_as_it_is_told_and_tells_nobody(
    elastic: tuple[Elastic, str], how: dict[str, str], sent: str
) -> None:
    served, url = elastic
    history = opened(url, **how)
    await history.append([a_build()])
    await history.close()
    assert set(served.headers) == {sent}
    shown = repr(ElasticLogin((url,), **how))
    assert not any(value in shown for value in how.values())


# --- documents ---------------------------------------------------------------------------------


def leaves(fields: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def mapped(properties: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, field in properties.items():
        if "properties" in field:
            yield from mapped(field["properties"], f"{before}{name}.")
        else:
            yield f"{before}{name}"


@pytest.mark.parametrize("kind", RecordKind)
def test_every_field_of_a_document_can_be_searched(kind: RecordKind) -> None:
    known = set(mapped(mappings()["properties"]))
    records: list[Record] = [r for r in a_history(300) if r.kind is kind]
    assert records
    for record in records:
        assert set(leaves(document(record))) <= known


def test_a_document_is_the_same_json_each_time() -> None:
    for record in a_history(50):
        assert json.dumps(document(record)) == json.dumps(document(record))


async def test_one_that_never_answers_does_not_hold_up_the_end() -> None:
    """It did for the 20 s that a request may take: the interpreter waits for its threads."""
    with silent_server() as url:
        await ends_within(
            TIMEOUT / 2,
            "import asyncio\n"
            "from doubles.history import a_build\n"
            "from warmpool.effects.elastic import ElasticHistory, ElasticLogin\n"
            "async def main():\n"
            f"    history = ElasticHistory(ElasticLogin(({url!r},)), 'history', max_age=None)\n"
            "    asking = [asyncio.ensure_future(history.append([a_build(n)])) for n in range(9)]\n"
            "    await asyncio.sleep(0.2)\n"
            "    for each in asking: each.cancel()\n"
            "    print('ending', flush=True)\n"
            "    await history.close()\n"
            "asyncio.run(main())\n",
        )
