"""A real Kubernetes control plane on this machine: etcd, kube-apiserver, kube-controller-manager.

    with ControlPlane() as cluster:
        cluster.kubectl("apply", "-f", "crds/")
        start_operator(kubeconfig=cluster.user_kubeconfig("warmpool-operator"))

It listens on the loopback interface only, with TLS and RBAC as in production. There is no scheduler
and no kubelet: Deployments and Pods are validated and stored, not run. Nothing outlives the process
that started it. The garbage collector hears of new kinds every 30 seconds, as it does everywhere.

On the command line: `python -m warmpool.tools.controlplane up | build | path | kubectl -- ARGS`.
"""

import argparse
import contextlib
import fcntl
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, MappingProxyType, TracebackType
from typing import Self

from warmpool.tools import kubeconfig as kubeconfigs
from warmpool.tools.binaries import (
    Programs,
    ensure_binary,
    find_kubectl,
    find_programs,
)
from warmpool.tools.cluster import Cluster, ClusterError, ExistingCluster, default_environ
from warmpool.tools.gobuild import BinariesError
from warmpool.tools.kubeconfig import LOCAL_CONTEXT, KubeconfigError, assert_test_context
from warmpool.tools.processes import (
    Process,
    ProcessError,
    free_ports,
    temporary_directory,
    wait_until,
)
from warmpool.tools.servers import (
    READY_WITHIN,
    ApiServer,
    Layout,
    await_controllers,
    controller_manager_command,
    etcd_command,
    etcd_healthy,
    etcd_put,
)

__all__ = [
    "DEFAULT_USERS",
    "LOCAL_CONTEXT",
    "ApiServer",
    "Cluster",
    "ClusterError",
    "ControlPlane",
    "ExistingCluster",
    "KubeconfigError",
    "assert_test_context",
    "open_cluster",
]

ADMIN = "admin"
DEFAULT_USERS: Mapping[str, Sequence[str]] = MappingProxyType(
    {ADMIN: ("system:masters",), "warmpool-operator": (), "warmpool-user": ()}
)
"""Users and their groups. All but the admin may do nothing until a role is bound to them."""

STARTS = 3
"""Tries to start: a port that was free may be taken in the moment before a server listens on it."""

GRACE = 5.0
"""Seconds for each server to end in its own way when its data is to be kept."""


class ControlPlane(Cluster):
    """A control plane that runs from `start` to `stop`, or for a `with` block.

    Args:
        directory: where its data and logs go and stay, for one that is to be started again;
            None means a temporary one, which is removed at the end.
        programs: what to start; None means found as `binaries` says, and built if need be.
        users: the users there are besides ServiceAccounts, with their groups; must have "admin".
        apiserver_args: further flags for every API server, such as an audit log.
        environ: the environment to find programs by and to run kubectl in; None means ours.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        programs: Programs | None = None,
        users: Mapping[str, Sequence[str]] = DEFAULT_USERS,
        apiserver_args: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        environ = default_environ() if environ is None else environ
        self._programs = programs or find_programs(environ)
        self._kept = directory
        self._users = users
        self._apiserver_args = apiserver_args
        self._stack = contextlib.ExitStack()
        self._tokens: dict[str, str] = {}
        self._etcd: Process | None = None
        self._ports = 0, 0
        """Of etcd: for clients, for peers."""
        self._controller_manager: Process | None = None
        self._apiservers: list[ApiServer] = []
        self.controllers = self._programs.kube_controller_manager is not None
        super().__init__(
            directory=directory or Path(),
            kubeconfig=Path(),
            kubectl=self._programs.kubectl,
            environ=environ,
        )

    def start(self) -> None:
        """Return when all of it works: the API is ready and, if there are any, controllers act.

        Raises:
            ProcessError: a server did not start; the text has the end of its log.
            ClusterError: another control plane runs in that directory.
        """
        with contextlib.ExitStack() as stack:
            self._stack = stack
            layout = Layout(self._take_directory())
            self.directory, self.kubeconfig = layout.root, layout.kubeconfig()
            self._tokens = _prepare(layout, self._users)
            self._launch(layout)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """End every process and remove the directory unless it is to be kept; may be repeated."""
        self._stack.close()
        self._apiservers.clear()
        self._etcd = self._controller_manager = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def apiserver(self) -> ApiServer:
        if not self._apiservers:
            raise ClusterError("this control plane is not running")
        return self._apiservers[0]

    @property
    def etcd_url(self) -> str:
        """Where etcd answers, for those who want to see every revision, whatever the API does."""
        if self._etcd is None:
            raise ClusterError("this control plane is not running")
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def processes(self) -> list[Process]:
        """All its processes, the running and the ended."""
        servers = [server.process for server in self._apiservers]
        others = [self._etcd, self._controller_manager]
        return [*servers, *(process for process in others if process is not None)]

    def environment(self, kubeconfig: Path | None = None) -> dict[str, str]:
        return {**super().environment(kubeconfig), "HOME": str(self.directory)}

    def user_kubeconfig(self, name: str) -> Path:
        """The kubeconfig of one of the users this control plane was made with.

        Raises:
            ClusterError: there is no such user; the API server reads them when it starts.
        """
        if name not in self._tokens:
            known = ", ".join(sorted(self._tokens))
            raise ClusterError(f"no user {name!r} among {known}: name it in ControlPlane(users=)")
        return self._write_kubeconfig(name, self._tokens[name])

    def restart_apiserver(self) -> None:
        """At the same address, with the same data, whether it was ended or still runs."""
        self.apiserver.restart()

    def kill_apiserver(self) -> None:
        """As if its machine had died."""
        self.apiserver.kill()

    def pause_apiserver(self) -> None:
        """As if its machine hung: connections stay, answers do not come, until it is resumed."""
        self.apiserver.pause()

    def resume_apiserver(self) -> None:
        self.apiserver.resume()

    def backup(self, directory: Path) -> None:
        """Copy etcd's data as they are at this moment, as the snapshot of a disk does."""
        assert self._etcd is not None, "this control plane is not running"  # noqa: S101
        self._etcd.pause()
        try:
            shutil.copytree(Layout(self.directory).etcd_data, directory)
        finally:
            self._etcd.resume()

    def restore(self, directory: Path, *, ahead: int = 0) -> None:
        """Begin anew from a backup, at the same addresses: all that was written since is gone.

        Args:
            directory: where `backup` has put it.
            ahead: by so many revisions the history goes on later than it ended in the backup, as
                `etcdutl snapshot restore --bump-revision` has it. Each is a write.
        """
        layout = Layout(self.directory)
        for process in reversed(self.processes):
            process.terminate(GRACE)
        shutil.rmtree(layout.etcd_data)
        shutil.copytree(directory, layout.etcd_data)
        self._start_etcd(layout, self._stack)
        for number in range(ahead):
            etcd_put(self._ports[0], "warmpool-bump", str(number))
        for server in self._apiservers:
            server.restart()
        self._start_controllers(layout, self._stack)

    def start_second_apiserver(self) -> ApiServer:
        """Another API server over the same etcd; its `kubeconfig` is the admin's through it."""
        first = self.apiserver
        server = first.twin(f"apiserver-{len(self._apiservers) + 1}")
        self._stack.callback(lambda: server.stop(grace=self._grace))
        self._apiservers.append(server)
        server.start(self._tokens[ADMIN])
        return server

    @property
    def _grace(self) -> float:
        """Data that is thrown away need not be put in order first."""
        return GRACE if self._kept else 0.0

    def _take_directory(self) -> Path:
        if self._kept is None:
            return self._stack.enter_context(temporary_directory("warmpool-controlplane-"))
        directory = self._kept.resolve()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = self._stack.enter_context((directory / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ClusterError(f"another control plane runs in {directory}") from error
        return directory

    def _launch(self, layout: Layout) -> None:
        for attempt in range(1, STARTS + 1):
            try:
                with contextlib.ExitStack() as servers:
                    self._start_servers(layout, servers)
                    self._stack.push(servers.pop_all())
            except ProcessError as error:
                if attempt == STARTS or "address already in use" not in str(error):
                    raise
            else:
                return

    def _start_servers(self, layout: Layout, servers: contextlib.ExitStack) -> None:
        client, peer = free_ports(2)
        self._ports = client, peer
        self._start_etcd(layout, servers)
        server = ApiServer(
            "apiserver", layout, self._programs, etcd=client, extra=self._apiserver_args
        )
        servers.callback(lambda: server.stop(grace=self._grace))
        server.start(self._tokens[ADMIN])
        self._apiservers = [server]
        self._start_controllers(layout, servers)

    def _start_etcd(self, layout: Layout, servers: contextlib.ExitStack) -> None:
        client, peer = self._ports
        command = etcd_command(self._programs, layout, client=client, peer=peer)
        self._etcd = _started(servers, command, layout, "etcd", grace=self._grace)
        self._etcd.wait_for(lambda: etcd_healthy(client), READY_WITHIN, "its health")

    def _start_controllers(self, layout: Layout, servers: contextlib.ExitStack) -> None:
        program = self._programs.kube_controller_manager
        if program is None:
            return
        command = controller_manager_command(program, layout)
        manager = _started(servers, command, layout, "controller-manager", grace=self._grace)
        self._controller_manager = manager
        await_controllers(self.apiserver, manager)


def _started(
    servers: contextlib.ExitStack,
    command: Sequence[str],
    layout: Layout,
    name: str,
    *,
    grace: float,
) -> Process:
    process = Process.start(command, log=layout.log(name), name=name)
    servers.callback(lambda: process.terminate(grace))
    return process


def _prepare(layout: Layout, users: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Write the files that servers are started with; one of an earlier run keeps its secrets."""
    if not layout.signing_key.exists():
        kubeconfigs.write_private(layout.signing_key, kubeconfigs.signing_key())
    known = kubeconfigs.tokens_in(layout.token_file)
    tokens = {user: known.get(user) or secrets.token_urlsafe(24) for user in users}
    kubeconfigs.write_private(layout.token_file, kubeconfigs.token_file(tokens, users))
    return tokens


@contextlib.contextmanager
def open_cluster(
    kubeconfig: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Cluster]:
    """The cluster a user names, by argument or by $WARMPOOL_KUBECONFIG, or else one of our own.

    Raises:
        KubeconfigError: the one named is not a cluster that tests may write to.
    """
    environ = default_environ() if environ is None else environ
    named = kubeconfig or environ.get("WARMPOOL_KUBECONFIG")
    if not named:
        with ControlPlane(environ=environ) as control_plane:
            yield control_plane
        return
    path = Path(named).expanduser().resolve()
    assert_test_context(path)
    with temporary_directory() as directory:
        kubectl = find_kubectl(environ)
        yield ExistingCluster(
            directory=directory, kubeconfig=path, kubectl=kubectl, environ=environ
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m warmpool.tools.controlplane")
    commands = parser.add_subparsers(required=True, metavar="up|build|path|kubectl")
    up = commands.add_parser("up", help="start it and keep it running until Ctrl-C")
    up.add_argument("--dir", type=Path, help="keep its data there; by default it is temporary")
    up.set_defaults(run=_up)
    build = commands.add_parser("build", help="build the binary unless it is in the cache")
    build.set_defaults(run=_build)
    path = commands.add_parser("path", help="the same, and print where it is")
    path.set_defaults(run=_path)
    kubectl = commands.add_parser("kubectl", help="run kubectl; never with ~/.kube")
    kubectl.add_argument("--dir", type=Path, help="the directory of `up`; default: $KUBECONFIG")
    kubectl.add_argument("args", nargs=argparse.REMAINDER)
    kubectl.set_defaults(run=_kubectl)
    arguments = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except (BinariesError, ClusterError, KubeconfigError, ProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _up(arguments: argparse.Namespace) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    # What a script starts in the background is deaf to this one unless it says otherwise.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), ControlPlane(arguments.dir) as control_plane:
        print(f"export KUBECONFIG={control_plane.kubeconfig}", flush=True)
        print(f"ready; logs in {control_plane.directory}/logs; Ctrl-C ends it", file=sys.stderr)
        _watch(control_plane.processes)
    return 0


def _watch(processes: Sequence[Process]) -> None:
    ended = wait_until(
        lambda: next((process for process in processes if not process.alive), None),
        timeout=float("inf"),
        what="the end",
    )
    raise ProcessError(f"{ended.name} has ended ({ended.returncode}):\n{ended.tail()}")


def _leave(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def _build(_: argparse.Namespace) -> int:
    ensure_binary(default_environ())
    return 0


def _path(_: argparse.Namespace) -> int:
    print(ensure_binary(default_environ()))
    return 0


def _kubectl(arguments: argparse.Namespace) -> int:
    environ = default_environ()
    named = environ.get("WARMPOOL_KUBECONFIG") or environ.get("KUBECONFIG") or "/dev/null"
    kubeconfig = Layout(arguments.dir).kubeconfig() if arguments.dir else named
    words = arguments.args[1:] if arguments.args[:1] == ["--"] else arguments.args
    with temporary_directory() as cache:
        env = {**environ, "KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(cache)}
        command = [*find_programs(environ).kubectl, *words]
        return subprocess.run(command, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
