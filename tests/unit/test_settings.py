"""What may be set, and that the docs say so."""

import re
from typing import Any

import pytest
from annotated_types import Ge, Le
from pydantic import ValidationError

from warmpool.settings import Settings
from warmpool.tools.crds import ROOT

ROW = re.compile(r"^\| `WARMPOOL_(\w+)` \| ([\d.]+) \| ([\d.]+) to ([\d.]+)", re.MULTILINE)


def operations() -> str:
    return (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def test_the_environment_sets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMPOOL_LEASE_SECONDS", "20")
    monkeypatch.setenv("WARMPOOL_LEASE_DEADLINE_SECONDS", "15.5")
    settings = Settings()
    assert (settings.lease.total_seconds(), settings.lease_deadline.total_seconds()) == (20, 15.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lease_seconds": 1},
        {"lease_seconds": 121},
        {"lease_seconds": 9.5},
        {"lease_deadline_seconds": 0.5},
        {"lease_retry_seconds": 0.1},
        {"replica_renew_seconds": 0.5},
        {"replica_renew_seconds": 601},
        {"probe_port": 70000},
        {"identity": "Upper"},
        {"identity": "a..b"},
        {"identity": "-a"},
        {"identity": ""},
        {"unknown": 1},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)


@pytest.mark.parametrize("good", ["a", "pod-7", "node-1.example.org", "7"])
def test_what_may_name_an_object_may_name_a_replica(good: str) -> None:
    assert Settings(identity=good).identity == good


@pytest.mark.parametrize(("retry", "deadline", "lease"), [(7, 7, 10), (2, 10, 10), (8, 7, 10)])
def test_times_of_a_lease_that_contradict_each_other_are_refused(
    retry: float, deadline: float, lease: int
) -> None:
    with pytest.raises(ValidationError, match="WARMPOOL_LEASE_RETRY_SECONDS < "):
        Settings(lease_retry_seconds=retry, lease_deadline_seconds=deadline, lease_seconds=lease)


def test_the_bounds_of_durations_are_those_of_the_docs() -> None:
    told = {name: tuple(map(float, numbers)) for name, *numbers in ROW.findall(operations())}
    are = {}
    for name, field in Settings.model_fields.items():
        low = [float(str(m.ge)) for m in field.metadata if isinstance(m, Ge)]
        high = [float(str(m.le)) for m in field.metadata if isinstance(m, Le)]
        if name.endswith("_seconds"):
            are[name.upper()] = (float(field.default), *low, *high)
    assert told.items() >= {k: v for k, v in are.items() if "LEASE" in k or "RENEW" in k}.items()
