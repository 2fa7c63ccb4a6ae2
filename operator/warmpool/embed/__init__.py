"""The operator inside your own program: see docs/embedding.md.

What is imported here is what may be relied on; everything else may move.
"""

from warmpool.api.v1alpha1.pool import Claimable
from warmpool.domain.claims import Shortage, Undecided
from warmpool.domain.errors import ClusterError
from warmpool.embed.handles import Operator, OperatorThread
from warmpool.reconcile.fit import Placed
from warmpool.reconcile.replicas import Leader, Member
from warmpool.reconcile.vitals import Turn
from warmpool.settings import Settings

__all__ = [
    "Claimable",
    "ClusterError",
    "Leader",
    "Member",
    "Operator",
    "OperatorThread",
    "Placed",
    "Settings",
    "Shortage",
    "Turn",
    "Undecided",
]
