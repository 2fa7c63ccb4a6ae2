"""A child's work: read and change how many servers a project may have. Needs the admin role.

`python quota.py CLOUD [NUMBER]` uses the clouds.yaml of $OS_CLIENT_CONFIG_FILE, and prints the
limit and the use as they were before, as JSON.
"""

import json
import sys

import openstack


def main() -> None:
    cloud, *number = sys.argv[1:]
    connection = openstack.connect(cloud=cloud)
    path = f"/os-quota-sets/{connection.current_project_id}"
    detail = connection.compute.get(f"{path}/detail")
    detail.raise_for_status()
    instances = detail.json()["quota_set"]["instances"]
    if number:
        body = {"quota_set": {"instances": int(number[0])}}
        connection.compute.put(path, json=body).raise_for_status()
    json.dump({"limit": instances["limit"], "used": instances["in_use"]}, sys.stdout)


if __name__ == "__main__":
    main()
