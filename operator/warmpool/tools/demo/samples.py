"""The manifests of `manifests/samples`, as they are and fitted to another cloud."""

from collections.abc import Mapping
from typing import Any, Final

import yaml

from warmpool.api.names import Kind
from warmpool.tools.crds import ROOT
from warmpool.tools.demo.clouds import Choice

FOLDER: Final = "manifests/samples"
NAMESPACE: Final = "search"
SECRET: Final = "lab-cloud"  # noqa: S105 - the name of a Secret
CLOUD: Final = "lab"

Document = dict[str, Any]


def path(name: str) -> str:
    """The path of a sample, from the root of the repository."""
    return f"{FOLDER}/{name}.yaml"


def documents(name: str) -> list[Document]:
    """The objects of a sample."""
    return list(yaml.safe_load_all((ROOT / path(name)).read_text(encoding="utf-8")))


def text(several: list[Document]) -> str:
    """As input of `kubectl apply -f -`."""
    return yaml.safe_dump_all(several, sort_keys=False)


def secret(clouds_yaml: str, cloud: str) -> Document:
    """The Secret that the sample pools refer to, with one cloud under the name that they use."""
    entry = yaml.safe_load(clouds_yaml)["clouds"][cloud]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": NAMESPACE},
        "stringData": {"clouds.yaml": yaml.safe_dump({"clouds": {CLOUD: entry}})},
    }


def fitted(pools: list[Document], choice: Choice, sizes: Mapping[str, int]) -> list[Document]:
    """The pools with what another cloud has. Nothing is known to answer there, so no probe.

    One build per zone at a time: those that Nova decides at once crowd the same hypervisors.
    """
    return [_fitted(pool, choice, sizes[pool["metadata"]["name"]]) for pool in pools]


def _fitted(pool: Document, choice: Choice, replicas: int) -> Document:
    template = {
        "flavor": choice.flavor,
        "image": choice.image,
        "networks": [{"network": network} for network in choice.networks],
    }
    health = {key: value for key, value in pool["spec"]["health"].items() if key != "probe"}
    spec = pool["spec"] | {
        "replicas": replicas,
        "maxConcurrent": max(1, len(choice.zones)),
        "availabilityZones": list(choice.zones),
        "template": template,
        "health": health,
    }
    return pool | {"spec": spec}


def claim(name: str, *, mode: str, counts: Mapping[str, int], called: str = "") -> list[Document]:
    """A sample claim with another mode and other counts of its requests, and another name."""
    [document] = documents(name)
    if document["kind"] != Kind.VM_CLAIM:
        raise ValueError(f"{path(name)} is no claim")
    requests = [
        r | {"count": counts.get(r["name"], r["count"])} for r in document["spec"]["requests"]
    ]
    metadata = document["metadata"] | ({"name": called} if called else {})
    spec = document["spec"] | {"mode": mode, "requests": requests}
    return [document | {"metadata": metadata, "spec": spec}]
