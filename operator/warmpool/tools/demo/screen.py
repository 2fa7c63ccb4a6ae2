"""What the demo prints: sections, steps with their times, tables; and what it waits for now.

The story goes to stdout. What is being waited for goes to stderr: on a terminal one line that is
rewritten and then gone, elsewhere a plain line every few seconds once it takes longer than two.
"""

import contextlib
import os
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TextIO

from warmpool.tools.demo.tables import Layout, Rows, widths

FRAMES: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
FRAME: Final = 0.1
"""Seconds between two pictures of the line that is rewritten."""
PATIENCE: Final = 2.0
"""Seconds that something may take without a word, where lines cannot be rewritten."""
REMIND: Final = 5.0
"""Seconds between two such words."""
WIDEST: Final = 100
"""Columns used for sentences and for times at the right, however wide the terminal is."""
BOLD, DIM, GREEN, RED = "1", "2", "32", "31"


@dataclass(slots=True)
class Step:
    """A step under way."""

    doing: str
    done: str = ""
    """What came true. Unset: what was being done."""
    note: str = ""
    """A sentence below it."""
    time: str = ""
    """Shown at the right. Unset: the time since the step began."""
    started: float = 0.0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started


class Screen:
    """Two streams, usually one terminal. Only one step is under way at a time."""

    def __init__(self, out: TextIO = sys.stdout, err: TextIO = sys.stderr) -> None:
        self._out, self._err = out, err
        self._lock = threading.Lock()
        self._rewrites = err.isatty()
        self._colours = out.isatty() and "NO_COLOR" not in os.environ
        self._width = shutil.get_terminal_size((WIDEST, 24)).columns if out.isatty() else WIDEST
        unicode = (out.encoding or "").lower().replace("-", "") == "utf8"
        self._ok, self._bad = ("✓", "✗") if unicode else ("ok", "failed:")
        self._frames = FRAMES if unicode else "|/-\\"
        self._shown = False
        self._spoke = 0.0
        """When a line was printed last. What prints anyway needs no reminder."""

    def section(self, title: str) -> None:
        """A new part of the story."""
        self._print("", self._styled(title, BOLD))

    def say(self, text: str) -> None:
        """A sentence, or several."""
        self._print(*(f"  {line}" for line in textwrap.wrap(text, self._columns - 4)))

    def command(self, line: str) -> None:
        """A command that is run, as one would type it."""
        self._print(f"  {self._styled('$ ' + line, DIM)}")

    def table(self, rows: Rows, layout: Layout | None = None) -> None:
        """Rows of a table, in a layout of their own unless another one is given."""
        layout = layout or self.layout(widths(rows))
        self.plain(*map(layout.line, rows))

    def layout(self, wanted: Sequence[int]) -> Layout:
        """The layout of a table with columns of these widths, as far as the terminal has room."""
        return Layout.fitting(wanted, self._width - 3 if self._out.isatty() else sys.maxsize)

    def plain(self, *lines: str) -> None:
        """Lines that are to be copied: neither cut nor wrapped."""
        self._print(*(f"  {line}" for line in lines))

    def failure(self, reason: str, log: str = "") -> None:
        """Why the story ends here, with the end of a log."""
        first, *rest = reason.splitlines() or ["unknown"]
        self._print("", f"{self._styled(self._bad, RED)} {first}", *(f"  {line}" for line in rest))
        if log:
            self._print(*(f"    {self._styled(line, DIM)}" for line in log.splitlines()))

    @contextlib.contextmanager
    def step(self, doing: str) -> Iterator[Step]:
        """Something that takes time: told when it is done, and while it is not."""
        step = Step(doing, started=time.monotonic())
        over = threading.Event()
        teller = threading.Thread(target=self._tell, args=(step, over), daemon=True)
        teller.start()
        try:
            yield step
        finally:
            over.set()
            teller.join()
        self._done(step.done or doing, step.time or seconds(step.elapsed), step.note)

    @property
    def _columns(self) -> int:
        return max(40, min(self._width, WIDEST))

    def _done(self, text: str, took: str, note: str) -> None:
        """`  ✓ text          time`, and the note below, both wrapped under their own beginning."""
        indent = 2 + len(self._ok) + 1
        first, *rest = textwrap.wrap(text, self._columns - indent - len(took) - 2) or [""]
        gap = " " * (self._columns - indent - len(first) - len(took))
        mark, at_right = self._styled(self._ok, GREEN), self._styled(took, DIM)
        rest += textwrap.wrap(note, self._columns - indent)
        self._print(f"  {mark} {first}{gap}{at_right}", *(" " * indent + line for line in rest))

    def _tell(self, step: Step, over: threading.Event) -> None:
        """Run beside a step until it is over."""
        count, patience = 0, PATIENCE
        while not over.wait(FRAME):
            count += 1
            if self._rewrites:
                self._rewrite(f"  {self._frames[count % len(self._frames)]} {step.doing}", step)
            elif time.monotonic() - max(step.started, self._spoke) >= patience:
                patience = REMIND
                self._spoke = time.monotonic()
                print(f"  ... {step.doing}, {step.elapsed:.0f} s", file=self._err, flush=True)
        with self._lock:
            self._wipe()

    def _rewrite(self, line: str, step: Step) -> None:
        took = f"  {step.elapsed:.0f} s" if step.elapsed >= 1 else ""
        with self._lock:
            self._err.write(f"\r\x1b[K{line[: self._width - len(took) - 1]}{took}")
            self._err.flush()
            self._shown = True

    def _wipe(self) -> None:
        if self._shown:
            self._err.write("\r\x1b[K")
            self._err.flush()
            self._shown = False

    def _print(self, *lines: str) -> None:
        # A reader who has left must not stop the tidying up.
        with self._lock, contextlib.suppress(OSError):
            self._wipe()
            self._spoke = time.monotonic()
            print(*lines, sep="\n", file=self._out, flush=True)

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._colours else text


def seconds(duration: float) -> str:
    """`3.1 s`, or from a minute on `1 min 20 s`."""
    minutes, rest = divmod(duration, 60)
    return f"{minutes:.0f} min {rest:02.0f} s" if minutes else f"{rest:.1f} s"
