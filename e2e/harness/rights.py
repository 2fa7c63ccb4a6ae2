"""Two sets of credentials for one cloud: a plain member's, and those of an admin in its project."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from harness.clouds import CloudUnderTest, Simulator
from warmpool.tools.demo.clouds import clouds_yaml_of

OWNER: Final = Path(__file__).parent / "migrant.py"
ANSWER_WITHIN: Final = 120.0
"""Seconds for one call of the child."""

RACKS: Final = "racks.yaml"


class Rights:
    """The cloud under test, by both."""

    def __init__(self, cloud: CloudUnderTest, member: str | None) -> None:
        """Know both.

        Args:
            cloud: by an admin's credentials.
            member: entry of the same clouds.yaml for a plain member of the same project.
        """
        self.cloud = cloud
        if isinstance(cloud, Simulator):
            self.member = "sim-member"
            self.clouds_yaml = cloud.clouds_yaml
        elif member:
            self.member = member
            self.clouds_yaml = _together(cloud.clouds_yaml, clouds_yaml_of(member, os.environ))
        else:
            pytest.skip("nobody has said with --member which cloud is a plain member's")

    @property
    def admin(self) -> str:
        return self.cloud.name

    def secret(self, *, inventory: bool) -> dict[str, str]:
        """Data of a Secret; with an inventory, the admin's credentials look for racks."""
        told = {"inventory": self.admin} if inventory else {}
        racks = {"clouds": {self.member: told}}
        return {"clouds.yaml": self.clouds_yaml, RACKS: yaml.safe_dump(racks)}

    def migrate(self, server: str, host: str) -> None:
        """Have a server, by its id, run on another host."""
        if isinstance(self.cloud, Simulator):
            self.cloud.do(do="server", server=server, change="move", to=host)
        else:
            self._do("migrate", server, host)

    def evacuate(self, server: str, host: str) -> None:
        """Have a server of a host that is dead built anew on another."""
        self._do("evacuate", server, host)

    def credential(self, name: str) -> dict[str, str]:
        """Make an application credential of the member's; its `id` and `secret`."""
        made: dict[str, str] = self._do("credential", name, cloud=self.member)
        return made

    def revoke(self, ident: str) -> None:
        """Delete one."""
        self._do("revoke", ident, cloud=self.member)

    def by_credential(self, made: dict[str, str]) -> str:
        """A clouds.yaml whose cloud logs in by an application credential."""
        entry = yaml.safe_load(self.clouds_yaml)["clouds"][self.member]
        auth = {
            "auth_url": entry["auth"]["auth_url"],
            "application_credential_id": made["id"],
            "application_credential_secret": made["secret"],
        }
        entry |= {"auth_type": "v3applicationcredential", "auth": auth}
        return yaml.safe_dump({"clouds": {self.member: entry}})

    def _do(self, *deed: str, cloud: str = "") -> Any:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(self.clouds_yaml)
            file.flush()
            done = subprocess.run(
                [sys.executable, str(OWNER), cloud or self.admin, *deed],
                env=os.environ | {"OS_CLIENT_CONFIG_FILE": file.name},
                capture_output=True,
                text=True,
                timeout=ANSWER_WITHIN,
                check=False,
            )
        assert done.returncode == 0, f"{deed[0]}: {done.stderr[-500:]}"
        return json.loads(done.stdout)


def _together(*texts: str) -> str:
    clouds = [yaml.safe_load(text)["clouds"] for text in texts]
    return yaml.safe_dump({"clouds": {name: e for each in clouds for name, e in each.items()}})
