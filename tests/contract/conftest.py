"""What the contract suites share."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from warmpool.tools.elasticsearch import ElasticsearchError, open_elasticsearch

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
