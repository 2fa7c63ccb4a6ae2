"""Settings of history, metrics and the catalogue: what is refused, and what is shown of secrets."""

import pytest
from pydantic import ValidationError

from warmpool.settings import Settings


def settings(monkeypatch: pytest.MonkeyPatch, **named: str) -> Settings:
    for name, value in named.items():
        monkeypatch.setenv(f"WARMPOOL_{name}", value)
    return Settings()


def test_history_is_in_memory_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch)
    assert (found.history_dir, found.elasticsearch_url, found.metrics_port) == (None, None, None)
    assert found.metrics_address == "127.0.0.1"


def test_several_addresses_of_one_elasticsearch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch, ELASTICSEARCH_URL="https://a:9200, https://b:9200")
    assert found.elasticsearch_urls == ("https://a:9200", "https://b:9200")


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ({"ELASTICSEARCH_URL": "a:9200"}, "http"),
        ({"ELASTICSEARCH_URL": "https://me:secret@a:9200"}, "password"),
        ({"ELASTICSEARCH_API_KEY": "k"}, "WARMPOOL_ELASTICSEARCH_URL"),
        (
            {
                "ELASTICSEARCH_URL": "https://a",
                "ELASTICSEARCH_API_KEY": "k",
                "ELASTICSEARCH_USER": "me",
                "ELASTICSEARCH_PASSWORD": "secret",
            },
            "not both",
        ),
        ({"ELASTICSEARCH_URL": "https://a", "ELASTICSEARCH_USER": "me"}, "PASSWORD"),
        ({"ELASTICSEARCH_STREAM": "Upper/Case"}, "pattern"),
        ({"HISTORY_DAYS": "0"}, "greater"),
        ({"CATALOGUE": "mongodb"}, "WARMPOOL_MONGODB_URI"),
        ({"CATALOGUE": "mongo", "MONGODB_URI": "mongodb://me:secret@a"}, "mongodb"),
        ({"MONGODB_DATABASE": "a/b", "MONGODB_URI": "mongodb://me:secret@a"}, "pattern"),
    ],
    ids=lambda case: str(case)[:60],
)
def test_what_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, named: dict[str, str], why: str
) -> None:
    with pytest.raises(ValidationError, match=why) as refused:
        settings(monkeypatch, **named)
    assert "secret" not in str(refused.value)


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(
        monkeypatch,
        ELASTICSEARCH_URL="https://a",
        ELASTICSEARCH_USER="me",
        ELASTICSEARCH_PASSWORD="hidden-word",  # noqa: S106 - a test's
    )
    assert "hidden-word" not in repr(found)
