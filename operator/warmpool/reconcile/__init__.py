"""The loops: observe, plan, execute. They know ports and planning, and no client library."""
