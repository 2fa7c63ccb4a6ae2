"""The CRDs as rendered: complete, structural, and the same as the files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from warmpool.api.crd import KEYWORDS, UnsupportedSchemaError, crd, structural_schema
from warmpool.api.names import Kind
from warmpool.api.v1alpha1 import KINDS
from warmpool.api.v1alpha1.base import SHARE_PATTERN, Share
from warmpool.api.v1alpha1.extras import EXTRAS, Column, Extras, Rule
from warmpool.tools import crds as tool

CRDS = {model.kind: crd(model, model.kind) for model in KINDS}
EXTENSIONS = {
    "x-kubernetes-int-or-string",
    "anyOf",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
}


def schema_of(kind: Kind) -> dict[str, Any]:
    version: dict[str, Any] = CRDS[kind]["spec"]["versions"][0]
    root: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return root


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


ALL_NODES = [
    pytest.param(kind, path, node, id=f"{kind}{path}")
    for kind in CRDS
    for path, node in nodes(schema_of(kind))
]


def node_at(kind: Kind, path: str) -> dict[str, Any]:
    return dict(nodes(schema_of(kind)))[path]


def test_the_files_are_what_the_models_say() -> None:
    assert tool.outdated(tool.rendered(), tool.ROOT) == []


def test_check_names_the_files_that_are_out_of_date(tmp_path: Path) -> None:
    tool.write(tool.rendered(), tmp_path)
    (tmp_path / "crds" / "warmvms.yaml").write_text("edited by hand")
    (tmp_path / "crds" / "leftover.yaml").write_text("of a kind that is gone")
    assert tool.outdated(tool.rendered(), tmp_path) == ["crds/leftover.yaml", "crds/warmvms.yaml"]


def test_check_and_write_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["--check", "--root", str(tmp_path)]) == 1
    assert "docs/reference/api.md is out of date" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert tool.main(["--write", "--root", str(tmp_path)]) == 0
    assert tool.main(["--check", "--root", str(tmp_path)]) == 0


@pytest.mark.parametrize(("kind", "path", "node"), ALL_NODES)
def test_every_node_is_structural(kind: Kind, path: str, node: dict[str, Any]) -> None:
    assert node_at(kind, path) == node
    assert node.keys() - set(KEYWORDS) <= EXTENSIONS
    if node.get("x-kubernetes-int-or-string"):
        assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}]
        return
    assert node["type"] in {"object", "array", "string", "integer", "boolean"}
    if node["type"] == "array":
        assert node["x-kubernetes-list-type"] in {"atomic", "set", "map"}
    if node["type"] == "integer":
        assert node["format"] in {"int32", "int64"}
    if node["type"] == "object":
        assert "properties" in node or node.get("additionalProperties")


@pytest.mark.parametrize(("kind", "path", "node"), ALL_NODES)
def test_every_field_has_one_line_of_words(kind: Kind, path: str, node: dict[str, Any]) -> None:
    assert kind in EXTRAS
    if not path.startswith(".metadata") and not path.endswith("[]"):
        assert node["description"].endswith(".")
        assert "\n" not in node["description"]


@pytest.mark.parametrize(("kind", "path", "node"), ALL_NODES)
def test_what_a_rule_may_walk_is_bounded(kind: Kind, path: str, node: dict[str, Any]) -> None:
    """The API server refuses a CRD whose rules could cost too much, by these very bounds."""
    assert kind in EXTRAS
    if node.get("type") == "array":
        assert "maxItems" in node, path


@pytest.mark.parametrize("kind", list(Kind))
def test_status_is_a_subresource_wherever_there_is_a_status(kind: Kind) -> None:
    version = CRDS[kind]["spec"]["versions"][0]
    has_status = "status" in schema_of(kind)["properties"]
    assert has_status == (kind is not Kind.BINDING_LEDGER)
    assert ("status" in version.get("subresources", {})) == has_status


@pytest.mark.parametrize("kind", [Kind.WARM_POOL, Kind.VM_CLAIM, Kind.WARM_VM])
def test_a_status_appears_by_itself_so_that_a_new_object_is_not_taken_for_settled(
    kind: Kind,
) -> None:
    """Flux and Argo CD call an object without any status ready."""
    assert node_at(kind, ".status")["default"] == {}
    assert node_at(kind, ".status.observedGeneration")["default"] == 0


def test_every_status_is_one_field_to_whoever_keeps_account_of_writers() -> None:
    for kind in CRDS:
        for path, node in nodes(schema_of(kind)):
            assert node.get("x-kubernetes-map-type") == ("atomic" if path == ".status" else None)


@pytest.mark.parametrize("kind", list(Kind))
def test_conditions_merge_by_type(kind: Kind) -> None:
    lists = [node for path, node in nodes(schema_of(kind)) if path.endswith(".conditions")]
    assert all(node["x-kubernetes-list-map-keys"] == ["type"] for node in lists)
    assert bool(lists) == (kind is not Kind.BINDING_LEDGER)


def test_a_pool_scales() -> None:
    scale = CRDS[Kind.WARM_POOL]["spec"]["versions"][0]["subresources"]["scale"]
    assert scale == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }


@pytest.mark.parametrize(
    ("kind", "short"),
    [(Kind.WARM_POOL, ["wp"]), (Kind.VM_CLAIM, ["vmc"]), (Kind.WARM_VM, ["wvm"])],
)
def test_short_names(kind: Kind, short: list[str]) -> None:
    names = CRDS[kind]["spec"]["names"]
    assert names["shortNames"] == short


@pytest.mark.parametrize("kind", list(Kind))
def test_the_category_hides_no_resource(kind: Kind) -> None:
    """`kubectl get warmpool es-data` fails if there is a category called warmpool."""
    names = CRDS[kind]["spec"]["names"]
    taken = {crd["spec"]["names"][key] for crd in CRDS.values() for key in ("plural", "singular")}
    assert len(names["categories"]) == 1
    assert not taken & set(names["categories"])


def test_defaults_are_said_where_kubectl_explain_shows_them() -> None:
    launch = node_at(Kind.WARM_POOL, ".spec.health.launchTimeout")
    assert launch["description"].endswith("Defaults to 15m.")
    assert node_at(Kind.WARM_POOL, ".spec.paused")["description"].endswith("Defaults to false.")
    assert "Defaults" not in node_at(Kind.WARM_POOL, ".status.ready")["description"]


def test_a_reference_with_null_becomes_the_referenced_object() -> None:
    fault = node_at(Kind.WARM_VM, ".status.fault")
    assert fault["type"] == "object"
    assert fault["description"] == "Why it failed."
    assert "default" not in fault


def test_a_rule_that_speaks_for_a_pattern_replaces_it() -> None:
    assert "pattern" not in node_at(Kind.WARM_POOL, ".spec.template.userData")
    assert "pattern" in node_at(Kind.WARM_POOL, ".spec.cloudRef.secretName")


class Documented(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Inner(Documented):
    name: str = ""
    """A name."""


class Plain(Documented):
    spec: Inner
    """The spec."""


class Union(Documented):
    spec: bool | str
    """Two types."""


class Number(Documented):
    spec: Share
    """How many."""


class Open(Documented):
    spec: dict[str, Any]
    """Anything."""


class Pair(Documented):
    spec: tuple[int, str]
    """A pair."""


class Above(Documented):
    spec: Annotated[int, Field(gt=0)]
    """Above a bound that is not part of it."""


class Fraction(Documented):
    spec: float
    """No number of ours has a fraction."""


class Keyed(Documented):
    spec: dict[Annotated[str, Field(pattern="^a")], str]
    """Keys with a pattern."""


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        pytest.param(Union, "spec: a CRD has no unions", id="union"),
        pytest.param(Open, "spec: the values of a map need a schema", id="open-map"),
        pytest.param(Pair, "spec: a CRD has no prefixItems", id="tuple"),
        pytest.param(Above, "spec: a CRD has no exclusiveMinimum", id="exclusive-bound"),
        pytest.param(Fraction, "spec: a CRD needs a type, not 'number'", id="float"),
        pytest.param(Keyed, "spec: a CRD has no patternProperties", id="constrained-keys"),
    ],
)
def test_what_no_crd_can_say_fails_the_build(model: type[BaseModel], complaint: str) -> None:
    with pytest.raises(UnsupportedSchemaError, match=complaint):
        structural_schema(model, Extras())


@pytest.mark.parametrize(
    "extras",
    [
        pytest.param(Extras(rules=(Rule("spec.nme", "true", "never"),)), id="rule"),
        pytest.param(Extras(columns=(Column("N", ".spec.nme", "A name."),)), id="column"),
        pytest.param(Extras(sets=("spec.nme",)), id="set"),
        pytest.param(Extras(keyed={"spec.nme": "name"}), id="keyed"),
        pytest.param(Extras(selectable=(".spec.nme",)), id="selectable"),
    ],
)
def test_extras_for_a_field_that_is_not_there_fail_the_build(extras: Extras) -> None:
    with pytest.raises(UnsupportedSchemaError, match=r"Plain: no such fields: spec\.nme"):
        structural_schema(Plain, extras)


def test_a_number_or_a_share_is_the_union_that_a_crd_knows() -> None:
    spec = structural_schema(Number, Extras())["properties"]["spec"]
    assert spec["x-kubernetes-int-or-string"]
    assert "type" not in spec
    assert (spec["minimum"], spec["pattern"]) == (0, SHARE_PATTERN)


def test_the_order_of_fields_is_the_order_in_the_model() -> None:
    fields = list(schema_of(Kind.VM_CLAIM)["properties"]["spec"]["properties"])
    assert fields[:2] == ["requests", "mode"]
