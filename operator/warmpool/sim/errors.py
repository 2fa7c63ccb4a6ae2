"""Refusals of the simulated Nova, with its own words."""

from typing import Final

KINDS: Final = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    406: "computeFault",
    409: "conflictingRequest",
    413: "overLimit",
    429: "overLimit",
    500: "computeFault",
    503: "serviceUnavailable",
}
"""Key of the body of an error answer, by its status."""

UNEXPECTED: Final = (
    "Unexpected API Error. Please report this at http://bugs.launchpad.net/nova/ and attach the "
    "Nova API log if possible.\n<class '{0}'>"
)


class Refused(Exception):
    """Nova answers with an error status."""

    def __init__(self, code: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def body(self) -> dict[str, object]:
        """The JSON of the answer."""
        kind = KINDS.get(self.code, "computeFault")
        return {kind: {"code": self.code, "message": self.message}}


def bad_request(message: str) -> Refused:
    return Refused(400, message)


def invalid_input(field: str, value: object, complaint: str) -> Refused:
    """What Nova's schema check answers. It echoes the whole value, user data included."""
    return Refused(400, f"Invalid input for field/attribute {field}. Value: {value}. {complaint}")


def policy(rule: str) -> Refused:
    return Refused(403, f"Policy doesn't allow {rule} to be performed.")


def no_instance(server_id: str) -> Refused:
    return Refused(404, f"Instance {server_id} could not be found.")


def wrong_state(action: str, server_id: str, attribute: str, value: str) -> Refused:
    return Refused(
        409, f"Cannot '{action}' instance {server_id} while it is in {attribute} {value}"
    )


def locked(server_id: str) -> Refused:
    return Refused(409, f"Instance {server_id} is locked")
