"""`python -m warmpool.tools.demo`: set the stage, tell the story, leave nothing behind."""

import argparse
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from warmpool.tools.binaries import Programs, find_programs
from warmpool.tools.controlplane import ClusterError
from warmpool.tools.demo import clouds, samples
from warmpool.tools.demo.screen import Screen, seconds
from warmpool.tools.demo.stage import DemoFailed, Stage, on_signals, open_stage, start_simulator
from warmpool.tools.demo.story import Cloud, Story, start_operators, stay
from warmpool.tools.gobuild import BinariesError
from warmpool.tools.processes import ProcessError, temporary_directory

SIZES: Final = {"es-data": 12, "es-master": 3}
"""Pools on a cloud of the user's: few servers, and still enough to cover six hypervisors."""
CLAIMED: Final = 9
"""VMs of the largest claim, which are built again while they are claimed."""
SIMULATED: Final = "sim"
"""The simulator's cloud in its clouds.yaml."""
FULL_WITHIN: Final = 120.0
FULL_WITHIN_FOR_REAL: Final = 900.0
"""Seconds for the pools to fill, in the simulator and in a cloud of the user's."""

FAILURES: Final = (
    BinariesError,
    ClusterError,
    DemoFailed,
    ProcessError,
    clouds.CloudError,
    subprocess.TimeoutExpired,
)


class Stopped(BaseException):
    """Somebody asked for the end. Not an error, and nothing may take it for one."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; the exit status."""
    arguments, screen = _parser().parse_args(argv), Screen()
    on_signals(_Stopper(screen))
    try:
        with temporary_directory("warmpool-demo-") as folder:
            return _Demo(arguments, screen, folder).run()
    except Stopped as stopped:
        return stopped.status
    except FAILURES as error:
        _explain(screen, error)
        return 1


class _Stopper:
    """The first Ctrl-C ends the story, and all is tidied up; the third ends that too."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._asked = 0

    def __call__(self, number: int) -> None:
        self._asked += 1
        if self._asked == 2:  # noqa: PLR2004 - between the first and the third
            self._screen.say("Still tidying up. Ctrl-C again leaves what there is.")
        else:
            raise Stopped(number)


class _Demo:
    """One run."""

    def __init__(self, arguments: argparse.Namespace, screen: Screen, folder: Path) -> None:
        self._arguments = arguments
        self._screen = screen
        self._folder = folder
        self._cloud_name = arguments.cloud or SIMULATED
        self._clouds_yaml = ""

    def run(self) -> int:
        """The whole demo; the exit status."""
        self._screen.section("warmpool keeps booted OpenStack VMs and hands out whole clusters")
        programs = find_programs(dict(os.environ))  # builds them if need be, and tells
        with contextlib.ExitStack() as stack:
            cloud = self._cloud(stack)
            stage = self._stage(programs, stack)
            start_operators(stage, self._screen, stack)
            try:
                status = self._tell(stage, cloud, programs)
            finally:
                self._tidy(stage)
                with self._screen.step("operators and control plane have ended, all is removed"):
                    stack.close()
        return status

    def _stage(self, programs: Programs, stack: contextlib.ExitStack) -> Stage:
        with self._screen.step("Kubernetes: etcd, kube-apiserver, controller-manager"):
            stage = stack.enter_context(open_stage(programs, self._folder))
        with self._screen.step("our kinds, namespaces, and the operator's rights"):
            stage.set_up()
        return stage

    def _cloud(self, stack: contextlib.ExitStack) -> Cloud:
        if self._arguments.cloud:
            return self._users_cloud()
        with self._screen.step("OpenStack, simulated: 18 hypervisors, 9 racks, 3 zones"):
            self._clouds_yaml = start_simulator(stack, self._folder)
        return Cloud(
            secret=samples.secret(self._clouds_yaml, SIMULATED),
            pools=samples.documents("pools"),
            shown=samples.path("pools"),
            full_within=FULL_WITHIN,
        )

    def _users_cloud(self) -> Cloud:
        name, args = self._cloud_name, self._arguments
        with self._screen.step(f"OpenStack, cloud {name}") as step:
            self._clouds_yaml = clouds.clouds_yaml_of(name, os.environ)
            survey = clouds.ask(self._clouds_yaml, name)
            choice = clouds.choose(
                survey, flavor=args.flavor, image=args.image, network=args.network
            )
            servers = sum(SIZES.values()) + CLAIMED
            if survey.instances_left is not None and survey.instances_left < servers:
                raise clouds.CloudError(
                    f"the demo builds up to {servers} servers, and the quota of cloud {name!r}"
                    f" leaves {survey.instances_left}: raise it, or use another project"
                )
            step.done = f"{step.doing}: {choice}"
        return Cloud(
            secret=samples.secret(self._clouds_yaml, name),
            pools=samples.fitted(samples.documents("pools"), choice, SIZES),
            shown="pools.yaml",
            full_within=FULL_WITHIN_FOR_REAL,
            servers=sum(SIZES.values()) + CLAIMED,
        )

    def _tell(self, stage: Stage, cloud: Cloud, programs: Programs) -> int:
        started = time.monotonic()
        try:
            Story(stage, self._screen, cloud).tell()
        except FAILURES as error:
            _explain(self._screen, error)
            return 1
        self._screen.section(f"That took {seconds(time.monotonic() - started)}")
        if not self._arguments.once:
            self._stay(stage, programs)
        return 0

    def _stay(self, stage: Stage, programs: Programs) -> None:
        self._screen.say("Everything stays up until Ctrl-C. Try it in another terminal:")
        leader = next((o for o in stage.operators if o.name == stage.leader()), stage.operators[0])
        alias = f"alias kubectl={shlex.quote(shlex.join(programs.kubectl))}"
        self._screen.plain(
            "",
            f"export KUBECONFIG={stage.cluster.kubeconfig}",
            *([] if shutil.which("kubectl") else [alias]),
            "",
            "kubectl get wp,vmc,wvm",
            f"kubectl apply -f {samples.path('claim-hypervisors')}",
            f"kill -9 {leader.pid}   # {leader.name}, which leads",
            "",
        )
        with contextlib.suppress(Stopped):
            stay(stage, self._screen)

    def _tidy(self, stage: Stage) -> None:
        """Delete what the demo made, and look whether the cloud has any server of it left."""
        self._screen.section("Tidying up")
        with self._screen.step("claims, pools and their namespace are deleted"):
            stage.tidy()
        with self._screen.step("asking the cloud what is left") as step:
            survey = clouds.ask(self._clouds_yaml, self._cloud_name)
            left = survey.left_by(stage.installation)
            if left:
                raise clouds.CloudError(
                    f"these servers are left in cloud {self._cloud_name!r}: {', '.join(left)}"
                )
            step.done = "openstacksdk lists no server of this demo in the cloud"


def _explain(screen: Screen, error: BaseException) -> None:
    if isinstance(error, subprocess.TimeoutExpired):
        words = " ".join(map(str, error.cmd))
        screen.failure(f"no end after {error.timeout:g} s of: {words}")
    else:
        screen.failure(str(error), error.log if isinstance(error, DemoFailed) else "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the story")
    parser.add_argument("--cloud", help="a cloud of your clouds.yaml instead of the simulator")
    parser.add_argument("--flavor", help="with --cloud; default: the smallest that holds an image")
    parser.add_argument("--image", help="with --cloud; default: the smallest that fits")
    parser.add_argument("--network", help="with --cloud; default: the first; none: without any")
    return parser


if __name__ == "__main__":
    sys.exit(main())
