"""`warmpool run`: the operator as a process, a thin main over `warmpool.embed`.

What concerns the whole process, and so is not for an embedded operator to do, is done here:
signals, logging, garbage collection, how threads take turns.
"""

import gc
import json
import logging
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from typing import Final

from warmpool.domain.errors import WarmpoolError
from warmpool.embed import OperatorThread, Settings

log = logging.getLogger(__name__)

LOOK_EVERY: Final = 0.2
"""Seconds between looks whether the operator has died."""

GC_AT_START: Final = (50_000, 50, 1_000)
"""While all objects are read for the first time. Nearly all that is made then stays, so whoever
looks for garbage finds none: with the default, half of the start of a replica with 10,000 VMs."""

GC_THRESHOLDS: Final = (50_000, 5, 5_000)
"""Afterwards. We walk ourselves, when no burst of claims is being answered: left to itself Python
walks each time so many objects more are alive, and so above all in a burst, where next to nothing
of what is new is garbage: that was a seventh of the work of a burst. These are for the longest."""

WORTH_A_WALK: Final = 1_000
"""New objects. 100 claims/s leave 4,000 between two looks, which take 4 ms."""

WITHIN: Final = 2.0
"""Seconds after which a burst is walked in all the same."""

FARTHER: Final = (10, 1_000)
"""Each tenth walk is over what has survived the others, too, and each thousandth over all that has
come since the start (45 ms, after 10,000 VMs): what leaves garbage, as kopf does at each event that
it gets (24 objects in a cycle), is seldom, and little of it grows old."""

SWITCH_INTERVAL: Final = 0.0005
"""Seconds for which a thread may keep the others from running Python. With the default, ten times
as long, each batch of history that a thread writes down holds up a claim for what one takes."""


def run(settings: Settings) -> int:
    """Until SIGTERM or SIGINT; the exit status."""
    configure_logging(settings)
    gc.set_threshold(*GC_AT_START)
    sys.setswitchinterval(SWITCH_INTERVAL)
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    operator = OperatorThread(settings)
    operator.start()
    try:
        _wait(operator, told)
        operator.stop()
    except Exception as error:
        cause = _first(error)
        if isinstance(cause, WarmpoolError | OSError):
            log.error("%s", cause)  # noqa: TRY400 - the text says all there is
        else:
            log.exception("the operator has died")
        return 1
    return 0


def _first(error: BaseException) -> BaseException:
    """The first error in a tree of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _wait(operator: OperatorThread, told: threading.Event) -> None:
    """Until told to stop, or it has died."""
    walks, walked_at = 0, 0.0
    settled = False
    while operator.running and not told.wait(LOOK_EVERY):
        if not settled and not operator.lacks():
            settled = True
            _spare_what_stays()
        now = time.monotonic()
        held_up = operator.in_burst and now < walked_at + WITHIN
        if settled and gc.get_count()[0] >= WORTH_A_WALK and not held_up:
            walks, walked_at = walks + 1, now
            operator.collect_garbage(sum(walks % each == 0 for each in FARTHER))


def _spare_what_stays() -> None:
    """The garbage collector need not look again at what has just been read."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging(settings: Settings) -> None:
    """Log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    for chatty in ("keystoneauth", "openstack", "urllib3", "asyncio", "stevedore", "pymongo"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
