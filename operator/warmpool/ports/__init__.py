"""What the loops need of the outside world, as protocols with error contracts."""
