"""Two leaders at once: what a stalled one had on its way when it was replaced does no harm.

The first stands still with any one of its writes sent and not arrived; the second takes over and
works; when it is about to make any one of its own writes, the first goes on. A `deaf` leader goes
on believing that it leads: its clock stood still, too, and the ledger's epoch alone stops it.
"""

import itertools

import pytest
from hypothesis import settings

from doubles.stories import STORIES, Story, tell, tell_with_two
from doubles.virtual_time import run

THOROUGH = settings.get_current_profile_name() == "nightly"


@pytest.mark.parametrize("story", STORIES, ids=str)
@pytest.mark.parametrize("deaf", [False, True], ids=["honest", "deaf"])
def test_a_late_write_does_no_harm(story: Story, *, deaf: bool) -> None:
    pauses = len(run(tell(story)).writes)
    step = 3 if deaf and not THOROUGH else 1
    for pause in range(1, pauses):
        for resume in itertools.count(pause % step, step):
            told = run(tell_with_two(story, pause, resume, deaf=deaf))
            if resume >= len(told.later_writes):
                break
