"""A pool that is being deleted says what it waits for."""

from builders import a_claim_ref, a_pool, a_server, a_view, a_vm, claimed, ready, some_facts
from warmpool.api.v1alpha1.pool import Claimable
from warmpool.domain.pools import VmView
from warmpool.planning.conditions import pool_status


def retained(number: int) -> VmView:
    return a_view(a_vm(number, claim=a_claim_ref(), retained=True), a_server(number))


def waits_for(*vms: VmView) -> str:
    status = pool_status(some_facts(*vms, pool=a_pool(deleting=True)), Claimable(), None)
    return next(c.message for c in status.conditions if c.type == "Progressing")


def test_claimed_and_retained_vms_are_told_apart() -> None:
    assert waits_for(claimed(1), retained(2), retained(3)) == (
        "1 VMs are claimed: the pool goes when their claims are deleted;"
        " 2 VMs are retained: delete those WarmVMs"
    )


def test_who_has_to_act_is_not_told_of_others() -> None:
    assert waits_for(retained(1)) == "1 VMs are retained: delete those WarmVMs"
    assert "retained" not in waits_for(claimed(1))
    assert waits_for(ready(1)) == "1 VMs are left"
