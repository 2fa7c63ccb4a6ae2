"""How kopf is told to run."""

from collections.abc import Iterable
from itertools import islice

from warmpool.handlers.hosting import LAST_BACKOFF, kopf_settings


def test_an_api_server_that_is_away_is_waited_for_without_end_and_asked_often() -> None:
    """Once the pauses were used up after three minutes, and kopf stopped, and the replica too."""
    backoffs = kopf_settings().networking.error_backoffs
    assert isinstance(backoffs, Iterable)
    for _ in ("of one request", "of the next one"):
        pauses = list(islice(backoffs, 1000))
        assert len(pauses) == 1000
        assert pauses[0] < 1
        assert max(pauses) <= LAST_BACKOFF
