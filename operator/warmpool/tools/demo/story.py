"""The story: two pools fill, a whole cluster is claimed, a claim is refused, one is released."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from warmpool.api.names import LABEL_CLAIM, ClaimPhase, Kind, PoolCondition, Reason
from warmpool.api.v1alpha1.claim import Mode
from warmpool.tools.crds import ROOT
from warmpool.tools.demo import samples
from warmpool.tools.demo.screen import Screen
from warmpool.tools.demo.stage import DemoFailed, Object, Stage, pause
from warmpool.tools.demo.tables import Layout, cells, widths
from warmpool.tools.demo.watching import ClaimWatch, Decision

LEADS_WITHIN: Final = 60.0
SHOWN_WITHIN: Final = 30.0
"""Seconds for what follows a decision, such as the labels of the VMs."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """The cloud of this story."""

    secret: Object
    """How to log in."""
    pools: Sequence[Object]
    shown: str
    """The pools as an argument of `kubectl apply`."""
    full_within: float
    """Seconds for the pools to fill."""
    servers: int = 0
    """How many there will be at most, where they are a user's. 0: they are simulated."""

    @property
    def simulated(self) -> bool:
        return not self.servers


class Story:
    """Every method is one part, and leaves what the next one needs."""

    def __init__(self, stage: Stage, screen: Screen, cloud: Cloud) -> None:
        self._stage = stage
        self._screen = screen
        self._cloud = cloud
        self._seen: set[tuple[str, ...]] = set()
        self._layout: Layout | None = None
        self._explained_once = False

    def tell(self) -> None:
        """All of it.

        Raises:
            DemoFailed: a step did not come true.
        """
        self.pools_fill()
        self.racks()
        with self._stage.watch_claims() as claims:
            self.a_cluster(claims)
            self.refill()
            if not self._cloud.simulated:
                self.as_many_as_racks(claims)
            self.one_too_many(claims)
            self.hypervisors(claims)
            self.release()

    def pools_fill(self) -> None:
        """Both pools are created, and fill."""
        screen = self._screen
        sizes = [f"{p['spec']['replicas']} {p['metadata']['name']}" for p in self._cloud.pools]
        screen.section(f"Two pools are filled: {' and '.join(sizes)} VMs, kept booted and checked")
        if self._cloud.servers:
            screen.say(
                f"At most {self._cloud.servers} servers at a time. All are deleted at the end."
            )
        screen.command(f"kubectl create secret generic {samples.SECRET} --from-file=clouds.yaml")
        self._stage.kubectl("apply", "-f", "-", stdin=samples.text([self._cloud.secret]))
        self._apply(list(self._cloud.pools), self._cloud.shown)
        screen.command("kubectl get wp --watch")
        with screen.step("filling") as step:
            self._until_full()
            step.done = "all of them are ready"

    def racks(self) -> None:
        """Where the VMs are."""
        pools = self._stage.objects(Kind.WARM_POOL)
        domains = [{d["rack"]: d for d in p["status"].get("domains", [])} for p in pools]
        names = [p["metadata"]["name"] for p in pools]
        racks = sorted({rack for found in domains for rack in found})
        self._screen.section("Ready VMs by rack, from the status of the pools")
        rows = [("RACK", *(name.upper() for name in names))]
        for rack in racks:
            counts = (str(found.get(rack, {}).get("ready", 0)) for found in domains)
            rows.append((rack or "(unknown)", *counts))
        self._screen.table(rows)

    def a_cluster(self, claims: ClaimWatch) -> None:
        """Three masters and six data nodes, at once."""
        wanted = samples.documents("claim-logs-7")
        shown, how = samples.path("claim-logs-7"), " on 9 racks"
        if not self._cloud.simulated:
            wanted = samples.claim("claim-logs-7", mode=Mode.BEST_EFFORT.value, counts={})
            shown, how = "logs-7.yaml", ""
        self._screen.section(f"A whole cluster in one claim: 3 masters and 6 data nodes{how}")
        self._bound(claims, wanted, shown)
        self._show_claim("logs-7", vms=9)

    def refill(self) -> None:
        """What was claimed is built again."""
        self._screen.section("The pools build again what was claimed")
        self._screen.command("kubectl get wp --watch")
        with self._screen.step("filling") as step:
            self._until_full()
            step.done = "full again: replicas counts the unclaimed"

    def as_many_as_racks(self, claims: ClaimWatch) -> None:
        """As many VMs on racks of their own as the pool covers racks."""
        racks = self._claimable()["distinctRacks"]
        if racks < 1:
            self._screen.section("RackAware")
            self._screen.say("These credentials see no racks, so no RackAware claim can be bound.")
            return
        self._screen.section(f"{racks} VMs, each on a rack of its own: as many as there are racks")
        wanted = samples.claim(
            "claim-too-large", mode=Mode.RACK_AWARE.value, counts={"data": racks}, called="racks"
        )
        self._bound(claims, wanted, "racks.yaml")
        self._show_claim("racks", vms=racks)

    def one_too_many(self, claims: ClaimWatch) -> None:
        """A claim that cannot be satisfied is refused, with the reason in numbers."""
        wanted, shown = samples.documents("claim-too-large"), samples.path("claim-too-large")
        if not self._cloud.simulated:
            counts = {"data": self._claimable()["distinctRacks"] + 1}
            if counts["data"] == 1:
                counts["data"] = 2
            wanted = samples.claim("claim-too-large", mode=Mode.RACK_AWARE.value, counts=counts)
            shown = "too-large.yaml"
        count = wanted[0]["spec"]["requests"][0]["count"]
        self._screen.section(
            f"{count} VMs on {count} racks cannot be had: refused at once, and why"
        )
        with self._screen.step("claiming") as step:
            decision = self._decide(claims, wanted, shown)
            if decision.phase is not ClaimPhase.FAILED or not decision.shortfall:
                raise DemoFailed("claim too-large was not refused", self._stage.leader_log())
            step.done, step.note = "too-large is refused", decision.shortfall
            step.time = f"{decision.milliseconds:.0f} ms"
        self._show("get", "vmc")

    def hypervisors(self, claims: ClaimWatch) -> None:
        """Each on a hypervisor of its own."""
        [wanted] = samples.documents("claim-hypervisors")
        [request] = wanted["spec"]["requests"]
        covered = self._claimable()["distinctHypervisors"]
        count = min(request["count"], covered)
        if count < 1:
            raise DemoFailed("es-data covers no hypervisor", self._stage.leader_log())
        title = f"{count} VMs, each on a hypervisor of its own (es-data covers {covered})"
        self._screen.section(title)
        shown = samples.path("claim-hypervisors")
        documents = [wanted]
        if count != request["count"]:
            counts = {request["name"]: count}
            mode = Mode.HYPERVISOR_AWARE.value
            documents = samples.claim("claim-hypervisors", mode=mode, counts=counts)
            shown = "logs-8.yaml"
        self._bound(claims, documents, shown)
        self._show_claim("logs-8", vms=count)

    def release(self) -> None:
        """Deleting claims gives the VMs back; the pools are as they were."""
        self._screen.section("Deleting the claims releases their VMs; the pools are full again")
        with self._screen.step("releasing") as step:
            self._screen.command("kubectl delete vmc --all")
            self._stage.kubectl("delete", Kind.VM_CLAIM.plural, "--all")
            self._until_full(alone=True)
            step.done = "released VMs are deleted, and nothing is claimed"
        self._show("get", "wp")

    # Parts of parts

    def _apply(self, documents: list[Object], shown: str) -> None:
        self._screen.command(f"kubectl apply -f {shown}")
        if (ROOT / shown).exists():
            self._stage.kubectl("apply", "-f", str(ROOT / shown))
        else:
            self._stage.kubectl("apply", "-f", "-", stdin=samples.text(documents))

    def _decide(self, claims: ClaimWatch, wanted: list[Object], shown: str) -> Decision:
        self._apply(wanted, shown)
        return claims.decision(wanted[0]["metadata"]["name"])

    def _bound(self, claims: ClaimWatch, wanted: list[Object], shown: str) -> None:
        name = wanted[0]["metadata"]["name"]
        with self._screen.step("claiming") as step:
            decision = self._decide(claims, wanted, shown)
            if decision.phase is not ClaimPhase.BOUND:
                why = f"claim {name} was refused: {decision.shortfall}"
                raise DemoFailed(why, self._stage.leader_log())
            step.done = f"{name} is Bound"
            step.note = self._explained()
            step.time = f"{decision.milliseconds:.0f} ms"

    def _explained(self) -> str:
        """What the milliseconds mean, once."""
        if self._explained_once:
            return ""
        self._explained_once = True
        return "The time is what a watching client sees, from creation to Bound."

    def _show_claim(self, name: str, *, vms: int) -> None:
        """The claim and its VMs: their labels follow the binding by a moment."""
        self._show("get", "vmc", name)
        selector = ("-l", f"{LABEL_CLAIM}={name}")
        self._stage.wait_for(
            lambda: len(self._stage.objects(Kind.WARM_VM, *selector)) == vms,
            within=SHOWN_WITHIN,
            what=f"{vms} VMs with the label of claim {name}",
        )
        self._show("get", "wvm", *selector)

    def _show(self, *args: str) -> None:
        self._screen.command(f"kubectl {' '.join(args)}")
        self._screen.table(cells(self._stage.kubectl(*args)))

    def _claimable(self) -> dict[str, int]:
        """What es-data alone could give now."""
        pools = {p["metadata"]["name"]: p for p in self._stage.objects(Kind.WARM_POOL)}
        claimable: dict[str, int] = pools["es-data"]["status"]["claimable"]
        return {"distinctRacks": 0, "distinctHypervisors": 0} | claimable

    def _until_full(self, *, alone: bool = False) -> None:
        """Wait for full pools, and print their table as it changes.

        With `alone`, print nothing and wait until nothing is claimed, too.
        """
        self._seen = set()
        self._layout = None
        try:
            self._stage.wait_for(
                lambda: self._full(alone=alone),
                within=self._cloud.full_within,
                what="full pools",
            )
        except DemoFailed as error:
            raise DemoFailed("\n".join([str(error), *self._why_not_full()]), error.log) from None

    def _full(self, *, alone: bool) -> bool:
        pools = self._stage.objects(Kind.WARM_POOL)
        if not alone:
            self._show_changes()
        for pool in pools:
            stuck = _condition(pool, PoolCondition.DEPENDENCIES_RESOLVED)
            if stuck is not None and stuck["status"] == "False":
                raise DemoFailed(f"pool {pool['metadata']['name']}: {stuck['message']}")
        return all(is_full(pool) for pool in pools) and not (alone and any(map(is_claimed, pools)))

    def _show_changes(self) -> None:
        """The rows that changed since they were printed last, in the columns of the first time."""
        header, *rows = cells(self._stage.kubectl("get", Kind.WARM_POOL.plural))
        if self._layout is None:
            room_for_state = ["" if name != "STATE" else Reason.POOL_FULL for name in header]
            self._layout = self._screen.layout(widths([header, room_for_state, *rows]))
            self._screen.table([header], self._layout)
        age = header.index("AGE")
        changed = [row for row in rows if tuple(row[:age]) not in self._seen]
        if changed:
            self._screen.table(changed, self._layout)
        self._seen = {tuple(row[:age]) for row in rows}

    def _why_not_full(self) -> list[str]:
        """What the pools say themselves."""
        lines = []
        for pool in self._stage.objects(Kind.WARM_POOL):
            status, name = pool.get("status", {}), pool["metadata"]["name"]
            ready = f"{status.get('ready', 0)} of {pool['spec']['replicas']} ready"
            why = status.get("lastFailure", {}).get("message", "")
            lines.append(f"{name}: {ready}{'; ' if why else ''}{why}")
        return lines


def start_operators(stage: Stage, screen: Screen, stack: contextlib.ExitStack) -> None:
    """Two replicas, and who of them leads."""
    with screen.step("two operators with their role's rights") as step:
        stage.start_operators(stack)
        stage.wait_for(lambda: bool(stage.leader()), within=LEADS_WITHIN, what="a leader")
        stage.wait_for(stage.knows_installation, within=LEADS_WITHIN, what="its ledger")
        step.done = f"{step.doing}: {stage.leader()} leads"


def stay(stage: Stage, screen: Screen) -> None:
    """Until somebody ends it; says who leads when that changes."""
    down: set[str] = set()
    while True:
        pause(0.5)
        for process in stage.operators:
            if not process.alive and process.name not in down:
                down.add(process.name)
                _tell_of_takeover(stage, screen, process.name)


def _tell_of_takeover(stage: Stage, screen: Screen, gone: str) -> None:
    if not any(process.alive for process in stage.operators):
        raise DemoFailed("both operators have ended", stage.leader_log())
    with screen.step(f"{gone} has ended; waiting for the other to lead") as step:
        while stage.leader() in {"", gone}:
            pause(0.2)
        step.done = f"{gone} has ended; {stage.leader()} leads"


def is_full(pool: Object) -> bool:
    """Whether the status is about this spec, and all that it wants is ready."""
    status = pool.get("status", {})
    current = status.get("observedGeneration") == pool["metadata"]["generation"]
    ready = status.get("ready", 0) >= pool["spec"]["replicas"]
    return bool(current and ready and not status.get("building", 0))


def is_claimed(pool: Object) -> bool:
    """Whether any of its VMs is claimed."""
    return bool(pool.get("status", {}).get("claimed", 0))


def _condition(pool: Object, kind: PoolCondition) -> Object | None:
    conditions = pool.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), None)
