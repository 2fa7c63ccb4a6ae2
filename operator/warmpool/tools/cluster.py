"""A Kubernetes cluster as tests, the demo and the benchmarks use it: a kubeconfig and a kubectl.

`ExistingCluster` is one that the user names; `controlplane.ControlPlane` is one that we start.
Neither reads or writes `~/.kube`: kubectl is told its configuration and its cache folder.
"""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from warmpool.tools import kubeconfig as kubeconfigs


class ClusterError(Exception):
    """A call of kubectl failed, or the cluster cannot do what was asked of it."""


class Cluster:
    """What can be done with any cluster.

    Attributes:
        directory: ours to write to; the kubeconfigs made on request and kubectl's cache go there.
        kubeconfig: the admin's.
        controllers: whether owned objects are collected and namespaces finally deleted.
    """

    controllers = True

    def __init__(
        self,
        *,
        directory: Path,
        kubeconfig: Path,
        kubectl: tuple[str, ...],
        environ: Mapping[str, str],
    ) -> None:
        self.directory = directory
        self.kubeconfig = kubeconfig
        self._kubectl = kubectl
        self._environ = environ

    def kubectl(
        self,
        *args: str,
        stdin: str | None = None,
        kubeconfig: Path | None = None,
        check: bool = True,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, as the admin unless another kubeconfig is given.

        Args:
            args: kubectl's arguments.
            stdin: the text for `-f -`.
            kubeconfig: whose eyes to see with; None means the admin's.
            check: raise if it fails.
            timeout: seconds.

        Raises:
            ClusterError: it failed; the text holds what it wrote to stderr.
            subprocess.TimeoutExpired: it took too long.
        """
        done = subprocess.run(
            [*self._kubectl, *args],
            input=stdin or "",
            env=self.environment(kubeconfig),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done

    def environment(self, kubeconfig: Path | None = None) -> dict[str, str]:
        """The environment for a child that shall reach this cluster through a kubeconfig."""
        return {
            **self._environ,
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            # A variable rather than --cache-dir: no flag may stand before the name of a plugin.
            "KUBECACHEDIR": str(self.directory / "kubectl-cache"),
            "KUBERC": "off",
        }

    def service_account_kubeconfig(self, namespace: str, name: str, *, hours: int = 1) -> Path:
        """A kubeconfig for a ServiceAccount that exists, with a token of so many hours."""
        span = f"--duration={hours}h"
        answer = self.kubectl("create", "token", name, "--namespace", namespace, span)
        token = answer.stdout.strip()
        return self._write_kubeconfig(f"{namespace}-{name}", token)

    def assert_test_context(self) -> None:
        """Raise KubeconfigError unless tests may write here."""
        kubeconfigs.assert_test_context(self.kubeconfig)

    def _write_kubeconfig(self, user: str, token: str) -> Path:
        path = self.directory / "kubeconfigs" / user
        own = kubeconfigs.for_user(self.kubeconfig.read_text(), user=user, token=token)
        kubeconfigs.write_private(path, own)
        return path


class ExistingCluster(Cluster):
    """A cluster that runs already, reached through the user's kubeconfig, which is only read."""


def default_environ() -> Mapping[str, str]:
    """The environment as it is when asked, for those that were not given another."""
    return dict(os.environ)
