"""History in an Elasticsearch data stream. The only module that knows the Elasticsearch client.

The index template is put before the first record, and the data stream comes into being with that.
Ids are the records' own and only `create` is used, so a repeat is refused by Elasticsearch itself
(409); but for one that comes after the stream has been rolled over, which is told twice.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

import elasticsearch

from warmpool.domain.history import Facet, Record
from warmpool.domain.history_text import from_text
from warmpool.effects.elastic_documents import (
    FIELDS,
    IDENT,
    ORIGINAL,
    TIME,
    document,
    mappings,
)
from warmpool.effects.threads import Daemons
from warmpool.ports.history import (
    PAGE,
    Cursor,
    Group,
    HistoryUnavailable,
    Refused,
    Wanted,
)

T = TypeVar("T")

THREADS: Final = 3
"""One brings records, the others answer people."""

TIMEOUT: Final = 20.0
"""Seconds for one request."""

CLOSE_WITHIN: Final = 1.0
"""Seconds. Requests that have no answer by then are left behind."""

GROUPS_AT_ONCE: Final = 5000
"""Groups of one answer; Elasticsearch allows 65,536 buckets."""

PRIORITY: Final = 500
"""Of the index template, above those that Elasticsearch brings."""

MAX_SAID: Final = 500
"""Characters of what Elasticsearch says that are passed on."""

_EXISTS: Final = 409
_TOO_LARGE: Final = 413
_TOO_MANY: Final = 429
_SERVER: Final = 500

MILLISECOND: Final = timedelta(milliseconds=1)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ElasticLogin:
    """How Elasticsearch is reached. An API key, or a name and a password, or nothing."""

    urls: tuple[str, ...]
    api_key: str | None = None
    user: str | None = None
    password: str | None = None
    ca_file: str | None = None
    """Certificates that are trusted. None: the system's."""

    def __repr__(self) -> str:
        return f"ElasticLogin({self.urls})"


class ElasticHistory:
    """A `History` in one data stream."""

    def __init__(
        self, login: ElasticLogin, stream: str, *, max_age: timedelta | None, at_once: bool = False
    ) -> None:
        """Nothing is asked before it is first used.

        Args:
            login: where it is.
            stream: name of the data stream, and of its index template.
            max_age: what Elasticsearch is told to keep. None: the cluster's own rules hold.
            at_once: what is appended is found at once, and not in a second. Costly.
        """
        self._client = _connect(login)
        self._stream = stream
        self._max_age = max_age
        self._refresh = at_once
        self._prepared = False
        self._threads = Daemons(THREADS, "elastic")

    async def append(self, records: Sequence[Record]) -> Sequence[Refused]:
        return await self._do(partial(self._append, records))

    async def find(
        self, wanted: Wanted, *, limit: int = PAGE, after: Cursor | None = None
    ) -> Sequence[Record]:
        return await self._do(partial(self._find, wanted, limit, after))

    async def count(
        self, wanted: Wanted, by: Sequence[Facet] = (), *, every: timedelta | None = None
    ) -> Mapping[Group, int]:
        return await self._do(partial(self._count, wanted, by, every))

    async def close(self) -> None:
        closing = asyncio.get_running_loop().run_in_executor(self._threads, self._client.close)
        self._threads.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN):
                await closing

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except (elasticsearch.ApiError, elasticsearch.TransportError) as error:
            raise HistoryUnavailable(f"Elasticsearch: {_said(error)}") from error

    # -- in a thread --------------------------------------------------------------------------

    def _prepare(self) -> None:
        """See that the template is there: without it, a plain index would come into being."""
        template: dict[str, Any] = {"mappings": mappings()}
        if self._max_age is not None:
            days = max(1, self._max_age // timedelta(days=1))
            template["lifecycle"] = {"data_retention": f"{days}d"}
        try:
            self._client.indices.put_index_template(
                name=self._stream,
                index_patterns=[self._stream],
                data_stream={},
                priority=PRIORITY,
                template=template,
            )
        except elasticsearch.AuthorizationException:
            if not self._client.indices.exists_index_template(name=self._stream):
                raise
        self._prepared = True

    def _append(self, records: Sequence[Record]) -> Sequence[Refused]:
        if not records:
            return ()
        if not self._prepared:
            self._prepare()
        operations: list[dict[str, Any]] = []
        for record in records:
            operations += ({"create": {"_id": record.id}}, document(record))
        try:
            answer = self._client.bulk(
                index=self._stream, operations=operations, refresh=self._refresh
            )
        except elasticsearch.ApiError as error:
            if error.status_code != _TOO_LARGE or len(records) == 1:
                raise
            half = len(records) // 2
            return [*self._append(records[:half]), *self._append(records[half:])]
        return [refused for item in answer["items"] if (refused := _refused(item)) is not None]

    def _find(self, wanted: Wanted, limit: int, after: Cursor | None) -> Sequence[Record]:
        answer = self._client.search(
            index=self._stream,
            ignore_unavailable=True,
            query=_query(wanted),
            sort=[{TIME: {"order": "desc"}}, {IDENT: {"order": "desc"}}],
            search_after=[_milliseconds(after.at), after.id] if after is not None else None,
            size=min(limit, PAGE),
            source={"includes": [ORIGINAL]},
            track_total_hits=False,
        )
        return [from_text(hit["_source"]["event"]["original"]) for hit in answer["hits"]["hits"]]

    def _count(
        self, wanted: Wanted, by: Sequence[Facet], every: timedelta | None
    ) -> Mapping[Group, int]:
        if not by and every is None:
            answer = self._client.count(
                index=self._stream, ignore_unavailable=True, query=_query(wanted)
            )
            return {Group(None, ()): answer["count"]} if answer["count"] else {}
        sources = _sources(by, every)
        groups: dict[Group, int] = {}
        after: Mapping[str, Any] | None = None
        while True:
            buckets, after = self._buckets(wanted, sources, after)
            for bucket in buckets:
                groups[_group(bucket["key"], by)] = bucket["doc_count"]
            if after is None:
                return groups

    def _buckets(
        self,
        wanted: Wanted,
        sources: Sequence[Mapping[str, Any]],
        after: Mapping[str, Any] | None,
    ) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, Any] | None]:
        """Some groups, and where the next ones begin."""
        composite: dict[str, Any] = {"size": GROUPS_AT_ONCE, "sources": sources}
        if after is not None:
            composite["after"] = after
        answer = self._client.search(
            index=self._stream,
            ignore_unavailable=True,
            query=_query(wanted),
            aggs={"groups": {"composite": composite}},
            size=0,
            track_total_hits=False,
        )
        found = answer.get("aggregations", {}).get("groups", {"buckets": []})
        full = len(found["buckets"]) == GROUPS_AT_ONCE
        return found["buckets"], found.get("after_key") if full else None


def _connect(login: ElasticLogin) -> elasticsearch.Elasticsearch:
    how: dict[str, Any] = {}
    if login.api_key is not None:
        how["api_key"] = login.api_key
    elif login.user is not None:
        how["basic_auth"] = (login.user, login.password or "")
    if login.ca_file is not None:
        how["ca_certs"] = login.ca_file
    return elasticsearch.Elasticsearch(
        list(login.urls), request_timeout=TIMEOUT, max_retries=0, retry_on_timeout=False, **how
    )


def _query(wanted: Wanted) -> dict[str, Any]:
    must: list[dict[str, Any]] = []
    span: dict[str, Any] = {}
    if wanted.since is not None:
        span["gte"] = _milliseconds(wanted.since)
    if wanted.until is not None:
        span["lt"] = _milliseconds(wanted.until)
    if span:
        must.append({"range": {TIME: {**span, "format": "epoch_millis"}}})
    must += [_among(FIELDS[facet], values) for facet, values in wanted.where.items()]
    return {"bool": {"filter": must}}


def _among(field: str, values: frozenset[str]) -> dict[str, Any]:
    """One of these values; the empty one means that there is none."""
    named: dict[str, Any] = {"terms": {field: sorted(values - {""})}}
    if "" not in values:
        return named
    lacking = {"bool": {"must_not": {"exists": {"field": field}}}}
    return {"bool": {"should": [named, lacking], "minimum_should_match": 1}}


def _sources(by: Sequence[Facet], every: timedelta | None) -> list[dict[str, Any]]:
    sources: list[dict[str, Any]] = []
    if every is not None:
        span = {"field": TIME, "fixed_interval": f"{every // MILLISECOND}ms"}
        sources.append({"start": {"date_histogram": span}})
    for facet in by:
        terms = {"field": FIELDS[facet], "missing_bucket": True}
        sources.append({facet.value: {"terms": terms}})
    return sources


def _group(key: Mapping[str, Any], by: Sequence[Facet]) -> Group:
    start = EPOCH + key["start"] * MILLISECOND if "start" in key else None
    return Group(start, tuple(key[facet.value] or "" for facet in by))


def _refused(item: Mapping[str, Any]) -> Refused | None:
    """What became of one record: None if it is kept."""
    created = item["create"]
    status, error = created["status"], created.get("error")
    if error is None or status == _EXISTS:
        return None
    why = f"{error.get('type')}: {error.get('reason')}"
    if status == _TOO_MANY or status >= _SERVER:
        raise HistoryUnavailable(f"Elasticsearch: {why}")
    return Refused(created["_id"], why)


def _said(error: elasticsearch.ApiError | elasticsearch.TransportError) -> str:
    """What Elasticsearch says, in one line: of causes in causes, the innermost says most."""
    if isinstance(error, elasticsearch.ApiError):
        body = error.body if isinstance(error.body, dict) else {}
        cause = body.get("error")
        while isinstance(cause, dict) and isinstance(cause.get("caused_by"), dict):
            cause = cause["caused_by"]
        reason = cause.get("reason") if isinstance(cause, dict) else cause
        return f"{error.status_code} {reason or error.message}"[:MAX_SAID]
    return f"{type(error).__name__}: {error.message}"


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // MILLISECOND
