"""From models to CRDs, purely.

Pydantic's JSON schema is no structural schema: references are inlined, unions with null collapse
to the other member, titles go, numbers get a format and lists a list type. Any keyword outside
`KEYWORDS` is refused, so that a new construct in a model fails the build and not the cluster.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, NoDefault
from pydantic_core import core_schema

from warmpool.api.names import GROUP, VERSION, Kind
from warmpool.api.v1alpha1.extras import EXTRAS, Column, Extras, Rule

Schema = dict[str, Any]

KEYWORDS: Final[tuple[str, ...]] = (
    "description",
    "type",
    "format",
    "default",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
    "properties",
    "items",
    "additionalProperties",
)
"""What a schema may say, in the order in which it is rendered."""

CATEGORY: Final = "warm"
"""`kubectl get warm` shows all kinds. Not `warmpool`: a category hides a resource of its name, and
`kubectl get warmpool <name>` would fail."""

INT_OR_STRING: Final = "x-kubernetes-int-or-string"

TYPES: Final = frozenset({"object", "array", "string", "integer", "boolean"})
INT32_MAX: Final = 2**31 - 1

ROOT_FIELDS: Final[dict[str, Schema]] = {
    "apiVersion": {"description": "Group and version of this schema.", "type": "string"},
    "kind": {"description": "What the object is.", "type": "string"},
    "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
}
"""The name is typed, since a rule may only speak about a field that the schema has."""


class UnsupportedSchemaError(ValueError):
    """A model or the table of extras says something that no CRD of ours can express."""


class _Defaults(GenerateJsonSchema):
    """Shows the defaults that a user should see.

    A nested model that needs nothing defaults to `{}`, which lets its own defaults show. Empty
    strings and lists show nothing: they are how our readers spell "unset".
    """

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        factory: Any = schema.get("default_factory")
        if isinstance(factory, type) and issubclass(factory, BaseModel):
            return {}
        default = schema.get("default", NoDefault)
        return NoDefault if default in (None, "", [], ()) else default


@dataclass(slots=True)
class _Structural:
    """Renders one model. Remembers the paths it met, to find table entries that lead nowhere."""

    definitions: Mapping[str, Schema]
    extras: Extras
    met: set[str] = field(default_factory=set)

    def render(self, node: Schema, path: str) -> Schema:
        node = self._inlined(node, path)
        union = node.pop(INT_OR_STRING, None)
        if union is None:
            _refuse_unknown(node, path)
        self.met.add(path)
        schema: Schema = {key: node[key] for key in KEYWORDS if key in node}
        if "description" in schema:
            schema["description"] = _words(schema, path)
        if union is not None:
            schema |= {"anyOf": union, INT_OR_STRING: True}
        return self._with_rules(schema | self._children(schema, path), path)

    def _with_rules(self, schema: Schema, path: str) -> Schema:
        if schema.get("type") == "integer":
            schema["format"] = (
                "int32" if schema.get("maximum", INT32_MAX + 1) <= INT32_MAX else "int64"
            )
        if schema.get("type") == "array":
            schema |= self._list_type(path)
        if any(rule.for_pattern and rule.about == path for rule in self.extras.rules):
            schema.pop("pattern", None)
        if rules := [_validation(rule) for rule in self.extras.rules if rule.at == path]:
            schema["x-kubernetes-validations"] = rules
        return schema

    def _inlined(self, node: Schema, path: str) -> Schema:
        """Without references and unions with null. What stands beside a reference wins."""
        rest = {k: v for k, v in node.items() if k not in {"$ref", "anyOf", "title"}}
        if "$ref" in node:
            target = self.definitions[node["$ref"].removeprefix("#/$defs/")]
            return self._inlined(target, path) | rest
        if "anyOf" in node:
            members = [member for member in node["anyOf"] if member != {"type": "null"}]
            if [member.get("type") for member in members] == ["integer", "string"]:
                return _int_or_string(members, path) | rest
            if len(members) != 1:
                raise UnsupportedSchemaError(f"{path}: a CRD has no unions but int-or-string")
            return self._inlined(members[0], path) | rest
        return rest

    def _children(self, schema: Schema, path: str) -> Schema:
        children: Schema = {}
        if "properties" in schema:
            children["properties"] = {
                name: self.render(child, f"{path}.{name}".lstrip("."))
                for name, child in schema["properties"].items()
            }
        for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
            if key in schema:
                children[key] = self.render(schema[key], f"{path}{mark}")
        return children

    def _list_type(self, path: str) -> Schema:
        key = "type" if path.endswith(".conditions") else self.extras.keyed.get(path)
        if key is not None:
            return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
        return {"x-kubernetes-list-type": "set" if path in self.extras.sets else "atomic"}


ATOMIC: Final = {"x-kubernetes-map-type": "atomic"}
"""Of each status: it has one writer, which writes it whole. To whoever keeps account of writers
(`managedFields`) it is one field then: that account was half of a claim, as measured, and a fifth
of what the API server does to write one."""


def structural_schema(model: type[BaseModel], extras: Extras) -> Schema:
    """The OpenAPI schema of a kind.

    Raises:
        UnsupportedSchemaError: the model uses a construct that a CRD has not, or the extras name
            a field that the model has not.
    """
    source = model.model_json_schema(by_alias=True, schema_generator=_Defaults)
    fields = {name: node for name, node in source["properties"].items() if name != "metadata"}
    structural = _Structural(source.get("$defs", {}), extras)
    root = structural.render(
        {
            "description": source.get("description", ""),
            "type": "object",
            "required": [name for name in source["required"] if name in fields],
            "properties": ROOT_FIELDS | fields,
        },
        "",
    )
    lost = sorted(set(_paths(extras)) - structural.met)
    if lost:
        raise UnsupportedSchemaError(f"{model.__name__}: no such fields: {', '.join(lost)}")
    if "status" in root["properties"]:
        root["properties"]["status"] |= ATOMIC
    return root


def crd(model: type[BaseModel], kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    extras = EXTRAS[kind]
    schema = structural_schema(model, extras)
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(column) for column in extras.columns],
        "subresources": _subresources(schema, extras),
        "selectableFields": [{"jsonPath": path} for path in extras.selectable],
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": _names(kind, extras),
            "versions": [{key: value for key, value in version.items() if value}],
        },
    }


def _words(schema: Schema, path: str) -> str:
    """The description on one line. It names the default, which `kubectl explain` leaves out."""
    words = " ".join(schema["description"].split())
    default = schema.get("default", {})
    if default == {} or not path.startswith("spec."):
        return words
    return f"{words} Defaults to {str(default).lower() if isinstance(default, bool) else default}."


def _int_or_string(members: list[Schema], path: str) -> Schema:
    """The one union that a CRD knows. A bound holds for numbers only, a pattern for texts only."""
    for member in members:
        _refuse_unknown(member, path)
    bounds = {key: value for member in members for key, value in member.items() if key != "type"}
    return {**bounds, INT_OR_STRING: [{"type": member["type"]} for member in members]}


def _refuse_unknown(node: Schema, path: str) -> None:
    unknown = sorted(node.keys() - set(KEYWORDS))
    if unknown:
        raise UnsupportedSchemaError(f"{path}: a CRD has no {', '.join(unknown)}")
    if node.get("type") not in TYPES:
        raise UnsupportedSchemaError(f"{path}: a CRD needs a type, not {node.get('type')!r}")
    if not isinstance(node.get("additionalProperties", {}), dict):
        raise UnsupportedSchemaError(f"{path}: the values of a map need a schema")


def _validation(rule: Rule) -> Schema:
    place = {"fieldPath": f".{rule.field}"} if rule.field else {}
    return {"rule": rule.rule, "message": rule.message, **place}


def _paths(extras: Extras) -> Iterator[str]:
    """Every field of the object that the table names."""
    for rule in extras.rules:
        yield rule.about
    yield from extras.keyed
    yield from extras.sets
    for path in (*extras.selectable, *(column.path for column in extras.columns)):
        if not path.startswith(".metadata."):
            yield path.removeprefix(".").replace("[0]", "[]")


def _column(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.description,
        **({"priority": 1} if column.wide else {}),
    }


def _subresources(schema: Schema, extras: Extras) -> dict[str, Any]:
    subresources: dict[str, Any] = {"status": {}} if "status" in schema["properties"] else {}
    if extras.scalable:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    return subresources


def _names(kind: Kind, extras: Extras) -> dict[str, Any]:
    return {
        "kind": kind.value,
        "listKind": f"{kind.value}List",
        "plural": kind.plural,
        "singular": kind.value.lower(),
        **({"shortNames": list(extras.short_names)} if extras.short_names else {}),
        "categories": [CATEGORY],
    }
