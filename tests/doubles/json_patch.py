"""The part of RFC 6902 that we use, as the API server's library reads it."""

from collections.abc import Mapping, Sequence
from typing import Any

from warmpool.domain.errors import TestFailed


def copied(value: Any) -> Any:
    """A copy of something that came of JSON: several times as fast as `copy.deepcopy`."""
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


def patched(body: Mapping[str, Any], ops: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A copy of the object with the operations applied.

    Raises:
        TestFailed: a test found something else, or a path is not there.
    """
    result: dict[str, Any] = copied(body)
    for op in ops:
        *parents, last = _parts(op["path"])
        target: Any = result
        for part in parents:
            target = _child(target, part, op["path"])
        _apply(op, target, last)
    return result


def _parts(pointer: str) -> list[str]:
    return [p.replace("~1", "/").replace("~0", "~") for p in pointer.split("/")[1:]]


def _child(target: Any, part: str, path: str) -> Any:
    try:
        return target[int(part)] if isinstance(target, list) else target[part]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise TestFailed(f"422: there is no {path}") from error


def _apply(op: Mapping[str, Any], target: Any, last: str) -> None:
    path = op["path"]
    match op["op"]:
        case "test":
            if _child(target, last, path) != op["value"]:
                raise TestFailed(f"422: {path} is not {op['value']!r}")
        case "remove":
            _child(target, last, path)
            del target[int(last) if isinstance(target, list) else last]
        case "replace" if isinstance(target, list):
            _child(target, last, path)
            target[int(last)] = copied(op["value"])
        case "add" if isinstance(target, list):
            target.insert(len(target) if last == "-" else int(last), copied(op["value"]))
        case "add" | "replace":  # the API server's library replaces what is not there, too
            target[last] = copied(op["value"])
        case other:
            raise NotImplementedError(other)
