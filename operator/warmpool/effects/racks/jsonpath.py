"""JSONPath (RFC 9535): the only module that knows its library."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

from jsonpath import JSONPathEnvironment, JSONPathError

MAX_FOUND: Final = 100_000
"""Values that a query may find in one document."""

_FORBIDDEN: Final = ("match", "search")
"""They take regular expressions, and one that backtracks would stop the whole operator."""


def _environment() -> JSONPathEnvironment:
    env = JSONPathEnvironment(strict=True)
    for name in _FORBIDDEN:
        del env.function_extensions[name]
    return env


_ENVIRONMENT: Final = _environment()


def compiled(query: str) -> str:
    """The query, if it is one.

    Raises:
        ValueError: it is none.
    """
    if query.count("..") > 1:
        raise ValueError("a JSONPath may have one '..' only: the work grows with each")
    try:
        _ENVIRONMENT.compile(query)
    except JSONPathError as error:
        said = str(error.args[0]) if error.args else "it cannot be read"
        raise ValueError(f"no JSONPath as RFC 9535 has it: {said}") from None
    return query


def find(query: str, document: Any) -> Iterator[Any]:
    """What a query finds in a document."""
    found: Iterable[Any] = _ENVIRONMENT.compile(query).finditer(document)
    return (match.obj for match in islice(found, MAX_FOUND))


def first(query: str, document: Any) -> Any:
    """The first that it finds; None: nothing."""
    return next(find(query, document), None)
