"""Names of templates: two that come to the same have the same one. Pure."""

import hashlib
import json
from typing import Any, Final

from warmpool.api.v1alpha1.pool import Template
from warmpool.domain.catalogue import Entry
from warmpool.domain.cloud import BuildSpec

LENGTH: Final = 10
"""Hexadecimal digits: a pool sees a few hundred templates in its life."""


def revision_of(template: Template) -> str:
    """The revision of a template.

    What a field says by default counts for nothing: an operator that knows further fields
    gives an old template the same name.
    """
    return _hash(_said(template))


def revision_resolved(template: Template, spec: BuildSpec) -> str:
    """The revision of a template that names an entry of the catalogue.

    What the entry comes to counts, and neither its name nor where it is kept: a catalogue can be
    moved, and its entries renamed, without a VM being replaced.
    """
    said = _said(template)
    said.pop("flavorRef", None)
    said["flavor"], said["image"] = spec.flavor_id, spec.image_id
    said["metadata"] = dict(spec.metadata)
    return _hash(said)


def revisions_by_name(template: Template, entry: Entry, spec: BuildSpec) -> frozenset[str]:
    """The revisions that the template has if it says itself what the entry says.

    By the entry's own words, or by the ids that they came to.
    """
    called = entry.image if isinstance(entry.image, str) else spec.image_id
    own = template.model_copy(update={"flavor_ref": None, "metadata": dict(spec.metadata)})
    return frozenset(
        revision_of(own.model_copy(update={"flavor": flavor, "image": image}))
        for flavor in (entry.flavor, spec.flavor_id)
        for image in (called, spec.image_id)
    )


def _said(template: Template) -> dict[str, Any]:
    return template.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _hash(said: dict[str, Any]) -> str:
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]
