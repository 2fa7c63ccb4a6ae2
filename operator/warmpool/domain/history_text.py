"""Records as text, and back: one JSON object a record, the same in every store."""

import json
from typing import Any, Final

from pydantic import TypeAdapter

from warmpool.domain.history import (
    BuildRecord,
    ClaimRecord,
    LeadershipRecord,
    Record,
    RecordKind,
    ReleaseRecord,
    RemovalRecord,
)

_ADAPTERS: Final[dict[RecordKind, TypeAdapter[Any]]] = {
    RecordKind.BUILD: TypeAdapter(BuildRecord),
    RecordKind.REMOVAL: TypeAdapter(RemovalRecord),
    RecordKind.CLAIM: TypeAdapter(ClaimRecord),
    RecordKind.RELEASE: TypeAdapter(ReleaseRecord),
    RecordKind.LEADERSHIP: TypeAdapter(LeadershipRecord),
}


def to_text(record: Record) -> str:
    """One line of JSON. The same record is always the same text."""
    fields = _ADAPTERS[record.kind].dump_json(record, exclude_none=True).decode()
    return f'{{"kind":"{record.kind.value}",{fields[1:]}'


def as_object(record: Record) -> dict[str, Any]:
    """What `to_text` writes, for whoever wants it in something larger."""
    fields = _ADAPTERS[record.kind].dump_python(record, mode="json", exclude_none=True)
    return {"kind": record.kind.value, **fields}


def from_text(text: str) -> Record:
    """The record that `to_text` was given.

    Raises:
        ValueError: it is not one that this version knows.
    """
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError("a record is an object")  # noqa: TRY004 - the text is wrong, not a type
    kind = RecordKind(fields.pop("kind", ""))
    record: Record = _ADAPTERS[kind].validate_python(fields)
    return record
