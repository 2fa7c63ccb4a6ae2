"""What an answer of Nova's other than success means for the caller. Pure.

One table of rules for all calls, so that a status code means the same everywhere.
"""

import re
from typing import Final

from warmpool.api.names import Reason
from warmpool.domain.cloud import FaultClass
from warmpool.domain.errors import (
    CapacityRefused,
    CloudError,
    CloudUnavailable,
    CredentialsRefused,
    OutcomeUnknown,
    RequestRejected,
)
from warmpool.effects.nova_calls import Answer, Effect
from warmpool.effects.nova_reading import error_text, read_fault

UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
REQUEST_TIMEOUT: Final = 408
SERVER_ERROR: Final = 500
RATE_LIMITS: Final = frozenset({413, 429})
REFUSALS: Final = range(400, 500)

_POLICY: Final = re.compile(r"policy doesn't allow (\S+) to be performed", re.IGNORECASE)
_WHOLE_CALL: Final = re.compile(r"os_compute_api:[a-z-]+:(create|delete|rebuild)")


def refusal(answer: Answer) -> CloudError:
    """The error that an answer with a status of 300 or more stands for."""
    text = error_text(answer.body, answer.call.withheld)
    said = f"{answer.call.name}: the cloud answered {answer.status}: {text}"
    effect, status = answer.call.effect, answer.status
    if status >= SERVER_ERROR or status == REQUEST_TIMEOUT:
        return CloudUnavailable(said) if effect is Effect.NONE else OutcomeUnknown(said)
    if status == UNAUTHORIZED or (status == FORBIDDEN and _whole_call_forbidden(effect, text)):
        return CredentialsRefused(said)
    if reason := _capacity(effect, status, text):
        return CapacityRefused(said, reason=reason)
    if status in RATE_LIMITS:
        return CloudUnavailable(said, reason=Reason.RATE_LIMITED)
    if effect is Effect.NONE or status not in REFUSALS:
        return CloudUnavailable(said)
    return RequestRejected(said)


def _capacity(effect: Effect, status: int, text: str) -> Reason | None:
    """Why a build is refused for want of room.

    Quotas and full networks come as 400, 403, 409 or 413: the text tells, as it does in faults.
    """
    if effect is not Effect.BUILD:
        return None
    fault = read_fault(text)
    if fault.kind is FaultClass.CAPACITY:
        return fault.reason
    return Reason.RATE_LIMITED if status in RATE_LIMITS else None


def _whole_call_forbidden(effect: Effect, text: str) -> bool:
    """A role that may not make this call at all, against one wish in it that the role may not have.

    Only the latter (a named host, say) is the template's fault. Too much metadata is a 403 too.
    """
    if effect is Effect.NONE:
        return True
    policy = _POLICY.search(text)
    return policy is not None and _WHOLE_CALL.fullmatch(policy[1]) is not None
