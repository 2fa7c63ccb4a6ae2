"""Random worlds, claims, users and mishaps: the same checker as for the told stories.

The profile decides how many: 50 normally, a thousand nightly.
"""

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from doubles.hands import Mishap
from doubles.replicas import add_claim
from doubles.stories import Story, World, tell, tell_with_two
from doubles.virtual_time import run
from warmpool.api.names import ClaimPhase, Kind

EXAMPLES = max(50, settings.default.max_examples // 20) if settings.default else 50
POOLS = ("data", "master")
ENDED = {ClaimPhase.BOUND, ClaimPhase.FAILED, ClaimPhase.RELEASED}


@dataclass(frozen=True)
class Wish:
    """A claim, and when it is made and deleted, if ever."""

    at: float
    asks: dict[str, int]
    spec: dict[str, Any]
    deleted_at: float | None


places = st.lists(
    st.builds(lambda r, h: f"r{r}/h{r}{h}", st.integers(1, 3), st.integers(1, 2)),
    min_size=1,
    max_size=5,
).map(" ".join)

moments = st.sampled_from([0.0, 0.0, 0.0, 0.02, 0.5, 2.0])

specs = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["BestEffort", "RackAware", "HypervisorAware"]),
        "onUnsatisfied": st.sampled_from(["Fail", "Fail", "Wait"]),
        "timeout": st.just("6s"),
        "priority": st.sampled_from([0, 0, 5]),
        "replaceLost": st.booleans(),
    },
    optional={"lifetime": st.just("3s")},
)

wishes = st.lists(
    st.builds(
        Wish,
        at=moments,
        asks=st.dictionaries(st.sampled_from(POOLS), st.integers(1, 3), min_size=1),
        spec=specs,
        deleted_at=st.none() | st.sampled_from([0.004, 0.3, 1.5]),
    ),
    min_size=1,
    max_size=5,
)

lost_vms = st.dictionaries(
    st.builds(lambda p, n: f"{p}-{n}", st.sampled_from(POOLS), st.integers(0, 4)),
    st.sampled_from([0.006, 0.1, 1.0, 3.0]),
    max_size=2,
)

recycled = st.booleans()
mishaps = st.sampled_from([None, *(m for m in Mishap if m is not Mishap.STALLS)])


def story_of(
    pools: dict[str, str], wishes: list[Wish], lost: dict[str, float], *, recycle: bool
) -> Story:
    """Moments are told apart by fractions of a millisecond, so that none hides another."""
    acts: dict[float, Any] = {}

    def later(moment: float, act: Any) -> None:
        acts[moment + len(acts) * 1e-4] = act

    for number, wish in enumerate(wishes):
        name = f"c{number}"
        later(wish.at, lambda w, n=name, x=wish: add_claim(w.api, n, x.asks, **x.spec))
        if wish.deleted_at is not None:
            later(wish.at + wish.deleted_at, lambda w, n=name: w.delete_claim(n))
    for vm, moment in lost.items():
        later(moment, lambda w, v=vm: w.delete_vm(v))
    later(9.0, World.finish_recycling)
    later(16.0, World.finish_recycling)

    def begin(world: World) -> None:
        for ref in world.api.peek(Kind.WARM_VM) if recycle else ():
            world.edit(Kind.WARM_VM, ref.name, reclaimPolicy="Recycle")

    ends = {f"c{n}": ENDED for n, wish in enumerate(wishes) if wish.deleted_at is None}
    return Story("a random one", pools, begin, acts, ends)


worlds = st.builds(
    story_of,
    st.fixed_dictionaries(dict.fromkeys(POOLS, places)),
    wishes,
    lost_vms,
    recycle=recycled,
)


@settings(max_examples=EXAMPLES)
@given(worlds, mishaps, st.integers(0, 30))
def test_a_random_world_survives_a_random_mishap(
    story: Story, mishap: Mishap | None, at: int
) -> None:
    run(tell(story, mishap, at))


@settings(max_examples=EXAMPLES)
@given(worlds, st.integers(1, 25), st.integers(0, 25), st.booleans())
def test_a_random_world_survives_two_leaders(
    story: Story, pause: int, resume: int, deaf: bool
) -> None:
    run(tell_with_two(story, pause, resume, deaf=deaf))
