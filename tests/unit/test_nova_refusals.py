"""Answers that are no success: which of our errors they are, for each kind of call."""

import orjson
import pytest

from warmpool.api.names import Reason
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
from warmpool.effects.nova_refusals import refusal

QUOTA = "Quota exceeded for instances: Requested 3, but already used 0 of 2 instances"
POLICY = "Policy doesn't allow os_compute_api:{} to be performed."
READ, CHANGE, BUILD = Effect.NONE, Effect.CHANGE, Effect.BUILD


def refused(effect: Effect, status: int, text: str = "so it is") -> CloudError:
    body = orjson.dumps({"fault": {"code": status, "message": text}})
    call = Call("create server", "/servers", "POST", effect=effect, withheld=("c2VjcmV0",))
    return refusal(Answer(call, status, body))


@pytest.mark.parametrize(
    ("effect", "status", "text", "kind"),
    [
        (READ, 401, "", CredentialsRefused),
        (BUILD, 401, "", CredentialsRefused),
        (READ, 403, POLICY.format("servers:detail"), CallForbidden),
        (BUILD, 403, POLICY.format("servers:create"), CallForbidden),
        (CHANGE, 403, POLICY.format("servers:delete"), CallForbidden),
        (BUILD, 403, POLICY.format("servers:create:forced_host"), AimForbidden),
        (
            BUILD,
            403,
            "Policy doesn't allow compute:servers:create:requested_destination to be performed.",
            AimForbidden,
        ),
        (BUILD, 403, POLICY.format("servers:create:zero_disk_flavor"), RequestRejected),
        (BUILD, 400, "Compute host h-1 could not be found.", CapacityRefused),
        (BUILD, 400, "The requested availability zone is not available", ZoneClosed),
        (BUILD, 403, "Maximum number of metadata items exceeds 128", RequestRejected),
        (BUILD, 403, QUOTA, CapacityRefused),
        (BUILD, 403, "Maximum number of ports exceeded", CapacityRefused),
        (BUILD, 403, "Quota exceeded, too many servers in group", CapacityRefused),
        (BUILD, 413, QUOTA, CapacityRefused),
        (BUILD, 400, "No fixed IP addresses available for network: n", CapacityRefused),
        (BUILD, 429, "", CapacityRefused),
        (BUILD, 413, "", CapacityRefused),
        (CHANGE, 429, "", CloudUnavailable),
        (READ, 429, "", CloudUnavailable),
        (BUILD, 400, "Flavor nope could not be found.", RequestRejected),
        (BUILD, 404, "", RequestRejected),
        (BUILD, 409, "Multiple possible networks found", RequestRejected),
        (CHANGE, 409, "Instance u is locked", RequestRejected),
        (CHANGE, 404, "", RequestRejected),
        (READ, 400, "marker [x] not found", CloudUnavailable),
        (READ, 406, "Version 2.200 is not supported by the API.", CloudUnavailable),
        (BUILD, 302, "", CloudUnavailable),
        (BUILD, 408, "", OutcomeUnknown),
        (BUILD, 500, "", OutcomeUnknown),
        (BUILD, 502, "", OutcomeUnknown),
        (CHANGE, 503, "", OutcomeUnknown),
        (CHANGE, 504, "", OutcomeUnknown),
        (READ, 500, "", CloudUnavailable),
        (READ, 503, QUOTA, CloudUnavailable),
    ],
)
def test_refusals(effect: Effect, status: int, text: str, kind: type[CloudError]) -> None:
    assert type(refused(effect, status, text)) is kind


def test_a_quota_keeps_its_numbers() -> None:
    error = refused(BUILD, 403, QUOTA)

    assert error.reason is Reason.QUOTA_EXCEEDED
    assert "Requested 3, but already used 0 of 2 instances" in str(error)


@pytest.mark.parametrize(
    "text",
    ["Compute host h could not be found.", "The requested availability zone is not available"],
)
def test_a_place_that_is_not_to_be_had_is_a_want_of_room(text: str) -> None:
    assert refused(BUILD, 400, text).reason is Reason.NO_VALID_HOST


@pytest.mark.parametrize("effect", list(Effect))
def test_a_rate_limit_says_so_whatever_was_asked(effect: Effect) -> None:
    assert refused(effect, 429).reason is Reason.RATE_LIMITED


@pytest.mark.parametrize("status", [400, 403, 409, 500])
def test_user_data_is_in_no_refusal(status: int) -> None:
    assert "c2VjcmV0" not in str(refused(BUILD, status, "Value: c2VjcmV0. 'c2VjcmV0' is bad"))
