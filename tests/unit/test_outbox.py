"""The outbox on disk: what was saved is there again, and a broken file stops nobody."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from builders import NOW
from warmpool.domain.notices import Mood, News, NoticeKind, Outbox, Route, Topic
from warmpool.effects.outbox import FileBox, from_json, to_json
from warmpool.planning.notices import add, begun, due, not_sent
from warmpool.ports.notices import OutboxUnavailable

ROUTE = Route("oncall", ("mailtos://me:hush@example.org",))


def a_full_one() -> Outbox:
    """Every field has something in it."""
    topic = Topic(NoticeKind.BUILDS_FAILING, "search", "search/data", "NoValidHost")
    urgent = replace(topic, kind=NoticeKind.POOL_STARVING)
    news = [News(topic, NOW, "no host"), News(urgent, NOW, "empty")]
    outbox = add(Outbox(moods={"uid": Mood(3, empty_since=NOW)}), news, [ROUTE])
    (each,) = due(outbox, [ROUTE], NOW + ROUTE.gather)
    outbox = begun(not_sent(begun(outbox, each), each, NOW), each)
    lane = replace(outbox.lanes["oncall"], told={urgent: NOW}, digest_at=NOW, dropped=2)
    return Outbox({"oncall": lane}, add(Outbox(), news, None).unrouted, outbox.moods)


async def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    box = FileBox(tmp_path / "new" / "outbox.json")
    assert await box.load() == Outbox()
    await box.save(a_full_one())
    assert await FileBox(tmp_path / "new" / "outbox.json").load() == a_full_one()


def test_no_address_is_in_it() -> None:
    assert from_json(to_json(a_full_one())) == a_full_one()
    assert b"hush" not in to_json(a_full_one())


async def test_a_broken_one_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "outbox.json"
    file.write_bytes(b'{"lanes": 7}')
    assert await FileBox(file).load() == Outbox()
    assert (tmp_path / "outbox.json.broken").exists()
    assert "broken" in caplog.text


async def test_one_that_cannot_be_read_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert await FileBox(tmp_path).load() == Outbox()
    assert "cannot be read" in caplog.text


async def test_a_full_disk_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = FileBox(tmp_path / "outbox.json")
    await box.save(a_full_one())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutboxUnavailable, match="No space left"):
        await box.save(Outbox())
    assert await box.load() == a_full_one()


async def test_in_memory_nothing_is_saved() -> None:
    box = FileBox(None)
    await box.save(a_full_one())
    assert await box.load() == Outbox()
