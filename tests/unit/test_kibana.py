"""Kibana's saved objects: they are what their description says, and refer to what there is."""

import json
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest

from warmpool.effects import elastic_documents
from warmpool.effects.elastic_documents import mappings
from warmpool.tools import kibana
from warmpool.tools.crds import ROOT
from warmpool.tools.dashboards import KIBANA

OBJECTS: list[dict[str, Any]] = [
    json.loads(line) for line in (ROOT / KIBANA).read_text(encoding="utf-8").splitlines()
]


def fields(mapping: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, inner in mapping["properties"].items():
        if "properties" in inner:
            yield from fields(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}"


KNOWN = {*fields(mappings())}


def asked(part: Any) -> Iterator[str]:
    """The fields that a query names."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "field":
                yield value
            elif key in ("terms", "term") and "field" not in value:
                yield from value
            else:
                yield from asked(value)
    elif isinstance(part, list):
        for value in part:
            yield from asked(value)


def test_the_file_is_what_the_description_says() -> None:
    assert kibana.objects() == OBJECTS


def test_fields_are_called_as_they_are_written() -> None:
    assert kibana.FIELDS == elastic_documents.FIELDS
    assert kibana.TIME == elastic_documents.TIME


def test_each_refers_to_one_before_it() -> None:
    seen: set[tuple[str, str]] = set()
    for each in OBJECTS:
        for reference in each["references"]:
            assert (reference["type"], reference["id"]) in seen
        seen.add((each["type"], each["id"]))
    assert len(seen) == len(OBJECTS)


def test_the_views_of_the_original_system_are_there() -> None:
    titles = {view.title for view in kibana.VIEWS}
    assert titles >= {
        "Instances built, and when",
        "Errors",
        "Build time",
        "Racks available",
        "Instance density per rack",
        "Leadership timeline",
        "Removals",
    }


@pytest.mark.parametrize("view", kibana.VIEWS, ids=lambda view: view.ident)
def test_a_view_asks_for_fields_that_are_searched(view: kibana.Chart | kibana.Table) -> None:
    if isinstance(view, kibana.Table):
        assert {*view.columns} <= KNOWN
    else:
        assert {*view.where, *asked(view.body)} <= KNOWN


def test_panels_do_not_lie_over_each_other_and_are_all_there() -> None:
    board = OBJECTS[-1]
    panels = json.loads(board["attributes"]["panelsJSON"])
    assert len(panels) == len(kibana.VIEWS) == len(board["references"])
    for panel, reference in zip(panels, board["references"], strict=True):
        assert reference["name"] == f"{panel['panelIndex']}:{panel['panelRefName']}"
    for one, other in combinations((panel["gridData"] for panel in panels), 2):
        across = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        down = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert across or down
