"""Version v1alpha1 of the kinds. The CRDs under `crds/` are rendered from these models."""

from warmpool.api.v1alpha1.claim import VMClaim
from warmpool.api.v1alpha1.flavor import VMFlavor
from warmpool.api.v1alpha1.ledger import BindingLedger
from warmpool.api.v1alpha1.pool import WarmPool
from warmpool.api.v1alpha1.vm import WarmVM

KINDS = (WarmPool, VMClaim, WarmVM, VMFlavor, BindingLedger)

__all__ = ["KINDS", "BindingLedger", "VMClaim", "VMFlavor", "WarmPool", "WarmVM"]
