"""warmpool: pools of booted, checked VMs, handed out in milliseconds."""
