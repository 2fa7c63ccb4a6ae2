"""Samples and docs: what a newcomer may copy is what the models, the Makefile and Python say."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from warmpool.api.crd import crd
from warmpool.api.names import API_VERSION
from warmpool.api.v1alpha1 import KINDS
from warmpool.effects.racks.config import read_racks_yaml
from warmpool.tools.crds import ROOT

KINDS_BY_NAME = {model.kind.value: model for model in KINDS}
SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Every fenced block of a language, with where it stands."""
    for path in DOCS:
        for number, match in enumerate(BLOCK.finditer(path.read_text(encoding="utf-8")), 1):
            if match[1] == language:
                yield f"{path.name}-{number}", match[2]


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in samples and docs."""
    texts = [(path.name, path.read_text(encoding="utf-8")) for path in SAMPLES]
    for where, text in [*texts, *blocks("yaml")]:
        for number, document in enumerate(yaml.safe_load_all(text), 1):
            yield f"{where}-{number}", document


MANIFESTS = dict(manifests())
OURS = {where: d for where, d in MANIFESTS.items() if d["apiVersion"] == API_VERSION}
CODE = dict(blocks("python"))


def spec_schema(kind: str) -> dict[str, Any]:
    """The schema of the spec of a kind, as the API server has it."""
    version = crd(KINDS_BY_NAME[kind], KINDS_BY_NAME[kind].kind)["spec"]["versions"][0]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def unknown_fields(value: object, schema: dict[str, Any], path: str = "") -> list[str]:
    """Paths that a schema does not know. The models themselves would pass over them."""
    if isinstance(value, list):
        return [p for item in value for p in unknown_fields(item, schema["items"], f"{path}[]")]
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    known: dict[str, Any] = schema["properties"]
    strays = [f"{path}.{key}" for key in value if key not in known]
    inner = (unknown_fields(value[k], known[k], f"{path}.{k}") for k in value if k in known)
    return strays + [p for paths in inner for p in paths]


@pytest.mark.parametrize("where", OURS)
def test_an_object_of_ours_is_what_its_model_says(where: str) -> None:
    document = OURS[where]
    model = KINDS_BY_NAME[document["kind"]]
    model.model_validate(document)
    assert unknown_fields(document["spec"], spec_schema(document["kind"])) == []


def racks_files() -> dict[str, dict[str, str]]:
    """Secrets with a racks.yaml."""
    secrets = {where: d.get("stringData", {}) for where, d in MANIFESTS.items()}
    return {where: data for where, data in secrets.items() if "racks.yaml" in data}


@pytest.mark.parametrize("where", racks_files())
def test_a_racks_yaml_is_what_its_model_says(where: str) -> None:
    data = racks_files()[where]
    said = read_racks_yaml(data["racks.yaml"], "lab")
    assert said != read_racks_yaml(None, "lab")
    if said.inventory is not None:
        assert said.inventory in yaml.safe_load(data["clouds.yaml"])["clouds"]


def test_a_field_that_does_not_exist_is_found() -> None:
    """Without this, the test above could pass whatever the samples say."""
    spec = {"replica": 1, "template": {"networks": [{"net": "a"}]}}
    strays = unknown_fields(spec, spec_schema("WarmPool"))
    assert strays == [".replica", ".template.networks[].net"]


def test_samples_and_readme_show_both_kinds_that_users_write() -> None:
    for prefix in ("README", "pools", "claim-logs-7"):
        assert any(where.startswith(prefix) for where in OURS)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_every_sample_begins_by_saying_what_it_is_for(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_claims_of_the_samples_ask_for_pools_of_the_samples() -> None:
    pools = {
        (d["metadata"]["namespace"], d["metadata"]["name"])
        for d in MANIFESTS.values()
        if d["kind"] == "WarmPool"
    }
    asked = {
        (d["metadata"]["namespace"], request["pool"]["name"])
        for d in OURS.values()
        if d["kind"] == "VMClaim"
        for request in d["spec"]["requests"]
    }
    assert asked
    assert asked <= pools


@pytest.mark.parametrize("where", CODE)
def test_a_python_block_runs(where: str) -> None:
    exec(compile(CODE[where], where, "exec"), {})  # noqa: S102 - our own docs


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_to_files_that_exist(path: Path) -> None:
    targets = LINK.findall(path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_every_make_target_that_docs_name_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    named = {
        target
        for path in DOCS
        for target in re.findall(r"(?:`|\$ )make ([a-z0-9-]+)", path.read_text(encoding="utf-8"))
    }
    assert named
    assert named <= targets
