"""A replica that does not lead changes nothing: every method of the ports is fenced, or only reads.

A new method of a port fails here until it is in one of the two lists.
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from warmpool.domain.errors import NotLeading
from warmpool.ports.cloud import Cloud
from warmpool.ports.cluster import Cluster
from warmpool.reconcile.fence import Fenced, FencedCloud

CLUSTER_READS = {"list", "get", "namespaces", "secret", "config_map"}
CLUSTER_WRITES = {"create", "patch", "replace", "delete", "event"}

CLOUD_READS = {
    "resolve",
    "get",
    "find",
    "list",
    "identity",
    "topology",
    "traits",
    "hosts",
    "inventory",
    "quota",
    "groups",
    "down_hosts",
    "console",
    "close",
}
CLOUD_WRITES = {"create", "delete", "rebuild", "set_metadata", "create_group", "delete_group"}


class Recording:
    """Takes every call, and knows which there were."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*_: object, **__: object) -> str:
            self.calls.append(name)
            return "answer"

        return call


def methods(port: type) -> set[str]:
    return {name for name, it in vars(port).items() if inspect.iscoroutinefunction(it)}


def arguments(port: type, name: str) -> tuple[list[object], dict[str, object]]:
    """Something for each parameter: nobody looks at it."""
    parameters = list(inspect.signature(getattr(port, name)).parameters.values())[1:]
    required = [p for p in parameters if p.default is p.empty]
    named = {p.name: object() for p in required if p.kind is p.KEYWORD_ONLY}
    return [object() for p in required if p.kind is not p.KEYWORD_ONLY], named


def refuse() -> None:
    raise NotLeading("not any more")


def test_every_method_is_known_to_read_or_to_write() -> None:
    assert methods(Cluster) == CLUSTER_READS | CLUSTER_WRITES
    assert methods(Cloud) == CLOUD_READS | CLOUD_WRITES


@pytest.mark.parametrize(
    ("port", "name"),
    [(Cluster, name) for name in sorted(CLUSTER_WRITES)]
    + [(Cloud, name) for name in sorted(CLOUD_WRITES)],
)
async def test_what_writes_is_refused_before_it_is_begun(port: type, name: str) -> None:
    inner: Any = Recording()
    fenced = Fenced(inner, lambda: False) if port is Cluster else FencedCloud(inner, refuse)
    given, named = arguments(port, name)
    with pytest.raises(NotLeading):
        await getattr(fenced, name)(*given, **named)
    assert inner.calls == []


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize(
    ("port", "name"),
    [(Cluster, name) for name in sorted(CLUSTER_READS | CLUSTER_WRITES)]
    + [(Cloud, name) for name in sorted(CLOUD_READS | CLOUD_WRITES)],
)
async def test_all_else_passes(port: type, name: str, leads: bool) -> None:
    if not leads and name in (CLUSTER_WRITES if port is Cluster else CLOUD_WRITES):
        return
    inner: Any = Recording()
    fenced = (
        Fenced(inner, lambda: leads)
        if port is Cluster
        else FencedCloud(inner, (lambda: None) if leads else refuse)
    )
    given, named = arguments(port, name)
    await getattr(fenced, name)(*given, **named)
    assert inner.calls == [name]
