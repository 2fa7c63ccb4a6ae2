"""One condition: its transition time moves only when its status does."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from warmpool.api.names import Reason
from warmpool.api.v1alpha1.base import Condition, ConditionStatus

MAX_MESSAGE: Final = 1000
"""Characters of a condition's message that we fill: the schema allows 1024."""

_STATUS: Final = {
    True: ConditionStatus.TRUE,
    False: ConditionStatus.FALSE,
    None: ConditionStatus.UNKNOWN,
}


def condition(  # noqa: PLR0913 - the fields of a condition
    kind: str,
    *,
    holds: bool | None,
    reason: Reason,
    message: str,
    now: datetime,
    generation: int,
    before: Iterable[Condition] = (),
) -> Condition:
    """The condition of this kind as it is now; `before` are the object's conditions until now.

    `holds` None: not known.
    """
    status = _STATUS[holds]
    old = next((c for c in before if c.type == kind), None)
    since = old.last_transition_time if old is not None and old.status is status else now
    return Condition(
        type=kind,
        status=status,
        reason=reason.value,
        message=message[:MAX_MESSAGE],
        last_transition_time=since,
        observed_generation=generation,
    )
