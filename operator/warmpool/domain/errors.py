"""Our few errors. The class says what to do; foreign exceptions never leave their adapter.

WarmpoolError
  CloudError            something about one cloud
    CapacityRefused       hold the zone, try again later; no build attempt is used up
      ZoneClosed            the same, whichever host of the zone was aimed at
    CloudUnavailable      it did not happen; try again with back-off
    OutcomeUnknown        it may have happened: look for it by owner before trying again
    AimForbidden          these credentials may choose no host: build without choosing
    RequestRejected       the template's fault: hold the pool until the spec or the cloud changes
    DependencyMissing     a name in the template means nothing there; hold, look again later
    CredentialsRefused    freeze every pool that uses these credentials; condemn nothing
    CloudConfigInvalid    clouds.yaml cannot be used; hold until the Secret changes
  ClusterError          something about one API-server call
    Conflict              somebody else wrote first: look again, decide again
    Invalid               the API server refuses the object, and always will
    Unreadable            we understand it not; it is there, so leave it alone
    NotFound              it is gone
    Forbidden             our role lacks a right
    ClusterUnavailable    it did not happen; try again
    ClusterOutcomeUnknown it may have happened: read before trying again
  RackError             something about where racks are read from; never in anybody's way
    RackConfigInvalid     racks.yaml cannot be used: the former chain stands; say so
    RackSourceFailed      a source tells nothing: what it said before stands; ask again later
  CatalogueError        something about where the catalogue is kept
    CatalogueConfigInvalid it cannot be opened: correct the settings
    CatalogueUnavailable  it does not answer: what it said before stands; ask again later
  NotLeading            this replica must not write; stop
  WentBack              the API server has forgotten what it said: forget it, too, and start anew
"""

from warmpool.api.names import Reason


class WarmpoolError(Exception):
    """Base of all errors that we raise on purpose."""


class CloudError(WarmpoolError):
    """A cloud did not do what was asked. `reason` is for conditions, the text for people."""

    reason: Reason = Reason.CLOUD_UNAVAILABLE

    def __init__(self, message: str, *, reason: Reason | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class CapacityRefused(CloudError):
    """Quota, no valid host, rate limit: hold, and try again later."""

    reason = Reason.QUOTA_EXCEEDED


class ZoneClosed(CapacityRefused):
    """No host of the zone takes builds, whichever it was that the build was aimed at."""

    reason = Reason.NO_VALID_HOST


class CloudUnavailable(CloudError):
    """The call did not happen. Try again with back-off."""


class OutcomeUnknown(CloudError):
    """The call may have happened: look for it by owner before trying again."""


class AimForbidden(CloudError):
    """These credentials may not say on which hypervisor to build. Build without saying so."""

    reason = Reason.REQUEST_REJECTED


class RequestRejected(CloudError):
    """Nova calls the request wrong: the same request will be refused again."""

    reason = Reason.REQUEST_REJECTED


class DependencyMissing(CloudError):
    """Something that the template names is not there. `field` is its path in the pool's spec."""

    reason = Reason.FLAVOR_NOT_FOUND

    def __init__(self, message: str, *, reason: Reason, field: str) -> None:
        super().__init__(message, reason=reason)
        self.field = field


class CredentialsRefused(CloudError):
    """Keystone or Nova refuse the credentials. Nothing else may be concluded from it."""

    reason = Reason.CREDENTIALS_REFUSED


class CallForbidden(CredentialsRefused):
    """Nova refuses one call to these credentials: their role may not make it. Others may go on."""


class CloudConfigInvalid(CloudError):
    """clouds.yaml cannot be used (SECRET_INVALID), or does not name the cloud (CLOUD_NOT_FOUND).

    The text names cloud and key, never a value.
    """

    reason = Reason.SECRET_INVALID


class ClusterError(WarmpoolError):
    """A call to the API server did not do what was asked."""


class Conflict(ClusterError):
    """Somebody else wrote first: look again, decide again."""


class TestFailed(ClusterError):
    """A `test` in a JSON patch found something else: the object is not the one that was meant."""

    __test__ = False  # pytest: no test class


class Invalid(ClusterError):
    """The API server refuses the object or the patch, and would again."""


class Unreadable(ClusterError):
    """The API server has the object, and it makes no sense to us: leave it alone, for it is there.

    The text is its first mistake, and where.
    """


class NotFound(ClusterError):
    """The object is gone."""


class Forbidden(ClusterError):
    """Our role lacks a right. The text names it."""


class ClusterUnavailable(ClusterError):
    """The call did not happen. Try again."""


class ClusterOutcomeUnknown(ClusterError):
    """The call may have happened: read before trying again."""


class WentBack(WarmpoolError):
    """The API server shows an older state than before: it was restored from a backup.

    Whoever remembers the newer one would take each truth for an echo of the past.
    """


class RackError(WarmpoolError):
    """Something about where racks are read from. The text is for people."""


class RackConfigInvalid(RackError):
    """racks.yaml cannot be used. The text names the place in it, never a secret."""


class RackSourceFailed(RackError):
    """A source tells nothing now. What it said before stands."""


class CatalogueError(WarmpoolError):
    """Something about where the catalogue is kept. The text is for people, and holds no secret."""


class CatalogueConfigInvalid(CatalogueError):
    """The catalogue cannot be opened as the settings say."""


class CatalogueUnavailable(CatalogueError):
    """The catalogue does not answer. What it said before stands."""


class NotLeading(WarmpoolError):
    """This replica does not lead, or not any more: it must not write."""
