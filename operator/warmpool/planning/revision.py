"""Names of templates: two that say the same have the same one. Pure."""

import hashlib
import json
from typing import Final

from warmpool.api.v1alpha1.pool import Template

LENGTH: Final = 10
"""Hexadecimal digits: a pool sees a few hundred templates in its life."""


def revision_of(template: Template) -> str:
    """The revision of a template.

    What a field says by default counts for nothing: an operator that knows further fields
    gives an old template the same name.
    """
    said = template.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]
