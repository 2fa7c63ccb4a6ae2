"""What the contract suites share."""

import asyncio

# looptime asks for the current event loop before every test, and asyncio makes one that nobody
# closes, unless it was told that there is none.
asyncio.set_event_loop(None)
