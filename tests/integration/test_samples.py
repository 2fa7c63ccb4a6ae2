"""A real API server takes every sample: schema, CEL rules and all."""

import pytest

from warmpool.tools.controlplane import ControlPlane
from warmpool.tools.crds import ROOT

FOLDER = ROOT / "manifests" / "samples"

pytestmark = pytest.mark.integration


def test_the_api_server_takes_every_sample(control_plane: ControlPlane) -> None:
    crds = str(ROOT / "crds")
    control_plane.kubectl("apply", "-f", crds)
    control_plane.kubectl("wait", "--for=condition=Established", "-f", crds)
    control_plane.kubectl("apply", "-f", str(FOLDER / "namespace.yaml"))
    done = control_plane.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", str(FOLDER)
    )
    taken = [line for line in done.stdout.splitlines() if line.endswith("(server dry run)")]
    assert len(taken) >= len(list(FOLDER.glob("*.yaml")))
