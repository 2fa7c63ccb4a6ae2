"""Facts and decisions as values. Nothing here does I/O, knows the time or has a choice."""
