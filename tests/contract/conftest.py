"""What the contract suites share."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from warmpool.tools.elasticsearch import ElasticsearchError, open_elasticsearch
from warmpool.tools.gobuild import BinariesError
from warmpool.tools.mongodb import open_mongodb

# looptime asks for the current event loop before every test, and asyncio makes one that nobody
# closes, unless it was told that there is none.
asyncio.set_event_loop(None)


@pytest.fixture(scope="session")
def elasticsearch_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An Elasticsearch that tests may write to: ELASTICSEARCH_URL's, or a node of our own.

    Each test has a data stream of its own in it.
    """
    if url := os.environ.get("ELASTICSEARCH_URL"):
        yield url
        return
    try:
        node = open_elasticsearch(tmp_path_factory.mktemp("elasticsearch"))
    except ElasticsearchError as error:
        pytest.skip(f"no ELASTICSEARCH_URL, and no node of our own: {error}")
    with node:
        yield node.url


@pytest.fixture(scope="session")
def mongodb_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A MongoDB that tests may write to: MONGODB_URI's, or a server of our own.

    Each test has a collection of its own, in the database `warmpool-test`.
    """
    if uri := os.environ.get("MONGODB_URI"):
        yield uri
        return
    try:
        server = open_mongodb(tmp_path_factory.mktemp("mongodb"))
    except BinariesError as error:
        pytest.skip(f"no MONGODB_URI, and no server of our own: {error}")
    with server:
        yield server.uri
