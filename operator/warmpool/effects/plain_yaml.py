"""YAML of strangers: no key twice, nothing that grows when it is read, and no error but one."""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final

import yaml

MAX_TEXT: Final = 32 * 1024
"""Characters of what is read on the loop: PyYAML takes a quarter of a second for these. Its faster
half, in C, ends the process on a text that is nested deeply."""

MAX_DEPTH: Final = 100
"""Brackets within brackets: PyYAML's time for them grows with the square of their number."""

MAX_NODES: Final = 200_000
"""Nodes of a document once each alias stands for what it means: nine lines can make a billion."""


MERGE: Final = "tag:yaml.org,2002:merge"
"""The tag of `<<`, which takes in what another mapping has: twice is twice as much."""


class NotPlainYamlError(Exception):
    """The text cannot be used. The message names a line and repeats nothing that stands there."""


class KeyTwiceError(NotPlainYamlError):
    """A mapping has a key twice: whichever was meant, the other would be lost without a word."""

    def __init__(self, key: str, line: int) -> None:
        """`line` counts from one. The key is not in the message."""
        super().__init__(f"has a key twice, at line {line}")
        self.key = key


def parse(text: str, limit: int = MAX_TEXT) -> Any:
    """What a text says, in plain types.

    Raises:
        NotPlainYamlError: nothing that can be used, or it is longer than `limit` characters.
    """
    if len(text) > limit:
        raise NotPlainYamlError(f"is longer than {limit} characters")
    if _depth(text) > MAX_DEPTH:
        raise NotPlainYamlError(f"has more than {MAX_DEPTH} brackets within brackets")
    try:
        return _parsed(text)
    except NotPlainYamlError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        # The cause is left out on purpose: its text quotes the line, which may hold a password.
        raise NotPlainYamlError(f"is no YAML{where}") from None
    except Exception:  # noqa: BLE001 - tags on the wrong nodes make it raise whatever there is
        raise NotPlainYamlError("is no YAML") from None


def _depth(text: str) -> int:
    """Brackets that are open at once; those in quotes and comments are counted, too."""
    steps = (1 if sign in "[{" else -1 for sign in text if sign in "[]{}")
    return max(accumulate(steps), default=0)


def _parsed(text: str) -> Any:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _weigh(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _weigh(node: yaml.Node, known: dict[int, int]) -> int:
    """Nodes below this one and itself, aliases written out."""
    weight = known.get(id(node))
    if weight is None:
        known[id(node)] = MAX_NODES  # whoever meets it below itself
        weight = known[id(node)] = 1 + sum(_weigh(child, known) for child in _children(node))
    if weight > MAX_NODES:
        raise NotPlainYamlError(f"has more than {MAX_NODES} values, aliases written out")
    return weight


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if key.value in seen:
                    raise KeyTwiceError(key.value, key.start_mark.line + 1)
                seen.add(key.value)
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
