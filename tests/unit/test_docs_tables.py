"""Tables in the docs that name tests: each exists, and each test of the file has its row."""

import re
from collections.abc import Iterator

import pytest

from warmpool.tools.crds import ROOT

CELL = re.compile(r"^\|.*\| `(test_\w+)` \|$", re.MULTILINE)
TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
TABLES = {
    "docs/faults.md": "tests/scenario/test_faults.py",
    "docs/pools.md": "tests/scenario/test_rules.py",
}


def rows(page: str) -> list[str]:
    return CELL.findall((ROOT / page).read_text(encoding="utf-8"))


def defined(file: str) -> Iterator[str]:
    yield from TEST.findall((ROOT / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize(("page", "file"), TABLES.items(), ids=TABLES)
def test_each_row_has_its_test_and_each_test_its_row(page: str, file: str) -> None:
    named = rows(page)
    assert named, f"{page} has no table of tests any more"
    assert sorted(named) == sorted(defined(file))
    assert len(set(named)) == len(named)
