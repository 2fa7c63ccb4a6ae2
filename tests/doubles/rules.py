"""The CRDs' rules that the guarantees rest on, as the API server enforces them."""

from collections.abc import Mapping
from typing import Any

from warmpool.api.names import Kind
from warmpool.domain.errors import Invalid

Old = Mapping[str, Any]


def check(kind: Kind, old: Old, new: Old) -> None:
    """Hold a new state of an object against its former one.

    Raises:
        Invalid: a rule refuses it.
    """
    match kind:
        case Kind.WARM_VM:
            _vm(old["spec"], new["spec"])
        case Kind.VM_CLAIM:
            _claim(old["status"], new["status"])
            same = old["spec"]["requests"] == new["spec"]["requests"]
            _unless(same, "requests cannot be changed")
        case Kind.BINDING_LEDGER:
            _unless(new["spec"]["epoch"] >= old["spec"]["epoch"], "epoch cannot go down")
            same = new["spec"]["installation"] == old["spec"]["installation"]
            _unless(same, "installation cannot be changed")
        case Kind.VM_FLAVOR:
            pass
        case Kind.WARM_POOL:
            same = old["spec"]["cloudRef"] == new["spec"]["cloudRef"]
            _unless(same, "cloudRef cannot be changed")


def _unless(holds: bool, message: str) -> None:
    if not holds:
        raise Invalid(f"422: {message}")


def _vm(old: Old, new: Old) -> None:
    had, has = old.get("claimRef"), new.get("claimRef")
    _unless(not had or not has or had["uid"] == has["uid"], "claimRef: the VM is taken")
    kept = new.get("providerID") == old.get("providerID")
    _unless("providerID" not in old or kept, "providerID cannot be changed")
    _unless(old["poolRef"] == new["poolRef"], "poolRef cannot be changed")


def _claim(old: Old, new: Old) -> None:
    had, has = old.get("allocation"), new.get("allocation")
    _unless(had is None or (has is not None and _grows(had, has)), "allocation cannot be changed")
    was, phase = old.get("phase"), new.get("phase")
    _unless(phase != "Bound" or has is not None, "phase Bound needs the allocation")
    ends = {"Bound": {"Bound", "Released"}, "Released": {"Released"}}
    _unless(was not in ends or phase in ends[was], "phase may go from Bound to Released only")


def _grows(had: Old, has: Old) -> bool:
    names = [{vm["uid"] + vm["serverID"] for vm in a["vms"]} for a in (had, has)]
    return bool(had["boundAt"] == has["boundAt"]) and names[0] <= names[1]
