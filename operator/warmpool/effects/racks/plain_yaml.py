"""YAML as people write it who mean no harm: no key twice, and nothing that grows when read."""

from typing import Any

import yaml


class KeyTwice(yaml.YAMLError):
    """A mapping has a key twice: whichever was meant, the other would be lost without a word."""

    def __init__(self, key: str, line: int) -> None:
        """`line` counts from one."""
        super().__init__(f"{key!r} is there twice, the second time at line {line}")
        self.line = line


class _Loader(yaml.SafeLoader):
    """Without merge keys: with those, a few lines make a mapping that fills the memory."""

    def flatten_mapping(self, node: Any) -> None:
        """Leave `<<` as it stands: nothing can be made of it, and so the text is refused."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise KeyTwice(key.value, key.start_mark.line + 1)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def parse(text: str) -> Any:
    """What a text says.

    Raises:
        yaml.YAMLError: nothing that can be used.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe one
    except (ValueError, RecursionError) as error:
        raise yaml.YAMLError(type(error).__name__) from error
