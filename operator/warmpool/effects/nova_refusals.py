"""What an answer of Nova's other than success means for the caller. Pure.

One table of rules for all calls, so that a status code means the same everywhere.
"""

import re
from typing import Final

from warmpool.api.names import Reason
from warmpool.domain.cloud import FaultClass
from warmpool.domain.errors import (
    AimForbidden,
    CallForbidden,
    CapacityRefused,
    CloudError,
    CloudUnavailable,
    CredentialsRefused,
    OutcomeUnknown,
    RequestRejected,
    ZoneClosed,
)
from warmpool.effects.nova_calls import Answer, Call, Effect
from warmpool.effects.nova_reading import error_text, read_fault

UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
REQUEST_TIMEOUT: Final = 408
SERVER_ERROR: Final = 500
RATE_LIMITS: Final = frozenset({413, 429})
REFUSALS: Final = range(400, 500)
LOGIN_PATH: Final = "/auth/tokens"

_POLICY: Final = re.compile(r"policy doesn't allow (\S+) to be performed", re.IGNORECASE)
_WHOLE_CALL: Final = re.compile(r"os_compute_api:[a-z-]+:(create|delete|rebuild)")
_AIM: Final = re.compile(r"[a-z_]+:servers:create:(requested_destination|forced_host)")
_NO_SUCH_HOST: Final = re.compile(r"^Compute host \S+ could not be found", re.IGNORECASE)
_ZONE_CLOSED: Final = re.compile(r"requested availability zone is not available", re.IGNORECASE)
"""All of its hosts are disabled. Nova says the same of a zone that is not there; but such a one was
missed when the template was looked up."""


def refusal(answer: Answer) -> CloudError:
    """The error that an answer with a status of 300 or more stands for."""
    text = error_text(answer.body, answer.call.withheld)
    said = f"{answer.call.name}: the cloud answered {answer.status}: {text}"
    effect, status = answer.call.effect, answer.status
    if status >= SERVER_ERROR or status == REQUEST_TIMEOUT:
        return CloudUnavailable(said) if effect is Effect.NONE else OutcomeUnknown(said)
    if kind := _not_allowed(effect, status, text):
        return kind(said)
    if effect is Effect.BUILD and (full := _full(status, text, said)):
        return full
    if status in RATE_LIMITS:
        return CloudUnavailable(said, reason=Reason.RATE_LIMITED)
    if effect is Effect.NONE or status not in REFUSALS:
        return CloudUnavailable(said)
    return RequestRejected(said)


def login_refusal(call: Call, status: int, url: str) -> CloudError:
    """The error that Keystone's refusal of a login stands for.

    Its own words stay out: it quotes the password that it finds malformed. A 404 is its answer to
    the id of an application credential that was deleted, and a proxy's to a wrong `auth_url`.
    """
    said = f"{call.name}: Keystone answered {status} to the login"
    if status in (UNAUTHORIZED, FORBIDDEN):
        return CredentialsRefused(said)
    if status == NOT_FOUND and url.endswith(LOGIN_PATH):
        return CredentialsRefused(f"{said}: an application credential may have been revoked")
    return CloudUnavailable(said)


def _full(status: int, text: str, said: str) -> CapacityRefused | None:
    """A build that is refused for want of room.

    Quotas and full networks come as 400, 403, 409 or 413: the text tells, as it does in faults.
    """
    if _ZONE_CLOSED.search(text):
        return ZoneClosed(said)
    if _NO_SUCH_HOST.match(text):
        return CapacityRefused(said, reason=Reason.NO_VALID_HOST)
    fault = read_fault(text)
    if fault.kind is FaultClass.CAPACITY:
        return CapacityRefused(said, reason=fault.reason)
    limited = status in RATE_LIMITS
    return CapacityRefused(said, reason=Reason.RATE_LIMITED) if limited else None


def _not_allowed(effect: Effect, status: int, text: str) -> type[CloudError] | None:
    """A role that may not make this call at all, or that may not have one wish in it.

    Only the former is the credentials' fault as a whole. Too much metadata is a 403 too.
    """
    if status == UNAUTHORIZED:
        return CredentialsRefused
    if status == FORBIDDEN and effect is Effect.NONE:
        return CallForbidden
    policy = _POLICY.search(text) if status == FORBIDDEN else None
    if policy is None:
        return None
    if _AIM.fullmatch(policy[1]):
        return AimForbidden
    return CallForbidden if _WHOLE_CALL.fullmatch(policy[1]) else None
