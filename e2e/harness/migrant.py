"""A child's work for `rights`: `python migrant.py CLOUD DEED [ARGUMENT...]`, the answer as JSON."""

import json
import sys
import time
from typing import Any

import openstack

EVACUATED_WITHIN = 90.0
"""Seconds: Nova has to hold the host for dead first."""

REFUSED = 400


def migrate(cloud: Any, server: str, host: str) -> None:
    """Live, as an admin does."""
    cloud.compute.live_migrate_server(server, host=host, block_migration="auto")


def evacuate(cloud: Any, server: str, host: str) -> None:
    """Nova refuses while it takes the old host to be up."""
    path, body = f"/servers/{server}/action", {"evacuate": {"host": host}}
    until = time.monotonic() + EVACUATED_WITHIN
    while True:
        answer = cloud.compute.post(path, json=body, microversion="2.68")
        if answer.status_code != REFUSED or time.monotonic() > until:
            break
        time.sleep(1)  # noqa: TID251 - a script of its own, with no loop
    answer.raise_for_status()


def credential(cloud: Any, name: str) -> dict[str, str]:
    """A new application credential of the caller's own."""
    made = cloud.identity.create_application_credential(cloud.current_user_id, name)
    return {"id": made.id, "secret": made.secret}


def revoke(cloud: Any, ident: str) -> None:
    cloud.identity.delete_application_credential(cloud.current_user_id, ident)


DEEDS = {deed.__name__: deed for deed in (migrate, evacuate, credential, revoke)}


def main() -> None:
    """Do it."""
    name, deed, *arguments = sys.argv[1:]
    done: Any = DEEDS[deed](openstack.connect(cloud=name), *arguments)
    json.dump(done, sys.stdout)


if __name__ == "__main__":
    main()
