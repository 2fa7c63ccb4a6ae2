"""Where sites keep their racks, one module per kind of place. The port is `ports.racks`."""
