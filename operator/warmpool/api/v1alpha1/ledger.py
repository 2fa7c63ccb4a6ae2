"""BindingLedger: the write-ahead log of bindings in flight."""

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from warmpool.api.names import Kind
from warmpool.api.v1alpha1.base import Metadata, Model, Time


class LedgerClaim(Model):
    """The claim that an entry binds."""

    namespace: str = Field(max_length=63)
    """Namespace of the VMClaim."""
    name: str = Field(max_length=253)
    """Name of the VMClaim."""
    uid: str = Field(max_length=63)
    """UID of the VMClaim."""


class LedgerVM(Model):
    """A VM that an entry binds."""

    namespace: str = Field(max_length=63)
    """Namespace of the WarmVM."""
    name: str = Field(max_length=253)
    """Name of the WarmVM."""
    uid: str = Field(max_length=63)
    """UID of the WarmVM."""
    request: str = Field(max_length=63)
    """Which of the claim's requests it serves."""


LedgerText = Annotated[str, StringConstraints(max_length=500_000)]
"""A `LedgerEntry` as JSON: some 300 characters for each VM."""


class LedgerRemoval(Model):
    """A free VM that is given up."""

    namespace: str = Field(max_length=63)
    """Namespace of the WarmVM."""
    name: str = Field(max_length=253)
    """Name of the WarmVM."""
    uid: str = Field(max_length=63)
    """UID of the WarmVM."""


class LedgerEntry(Model):
    """One binding that is committed and not yet settled."""

    claim: LedgerClaim
    """The claim."""
    bound_at: Time
    """When it was decided: whoever publishes it says the same."""
    vms: list[LedgerVM] = Field(max_length=500)
    """Its VMs, all of them."""


class BindingLedgerSpec(Model):
    """What is committed and not yet settled."""

    epoch: int = Field(ge=0)
    """Raised by each new leader. A write that carries an older one is refused."""
    holder: str = Field(default="", max_length=255)
    """Identity of the leader that wrote this."""
    installation: str = Field(max_length=36)
    """Id of this installation: on every server as a tag, so that no other's is ever touched."""
    written_at: Time | None = None
    """When the leader wrote this. It does so every 20 seconds at least."""
    look_back: bool = False
    """Nobody led for a while before this epoch, so the API server may be one that was restored from
    a backup: VMs are held against Nova before they are handed out. False once all have been."""
    entries: list[LedgerText] = Field(default_factory=list, max_length=5000)
    """Bindings in flight, each a JSON text of claim, boundAt and vms. Normally empty. They are
    texts because the API server looks at every field of an object on every write: as objects, the
    entries of a burst cost it four times as much, and claims wait for it."""
    removals: list[LedgerRemoval] = Field(default_factory=list, max_length=5000)
    """Ready VMs that are about to be deleted, and that no claim gets any more. Normally empty."""


class BindingLedger(Model):
    """Write-ahead log of bindings. Written by the leading operator alone: never edit it."""

    kind: ClassVar[Kind] = Kind.BINDING_LEDGER

    metadata: Metadata
    spec: BindingLedgerSpec
    """What is committed and not yet settled."""
