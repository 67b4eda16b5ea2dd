"""Progress of long loops: rate and time left, on a terminal or in a log file.

Work is often told in bursts: a batch takes ten seconds, and then its completions arrive one by one. So rate and time
left are those of whole batches, and nothing is said of them before the first is whole.

A stage that ends within two seconds shows nothing. On a terminal a stage is a bar while it runs; anywhere
else it is one line every ten seconds. Either way it leaves one line when it ends.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from recloop.errors import shown

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

QUIET_S = 2.0
LINE_EVERY_S = 10.0
PAUSE_S = 0.5  # guess: what is told without such a pause between was done as one batch


class Progress:
    """Where long loops report how far they are.

    Args:
        out: stream for the lines; None for silence.
        bars: draw live bars on `out` (a terminal) instead of a line every ten seconds.
        clock: seconds, monotonic; replaced in tests.
    """

    def __init__(self, out: TextIO | None, *, bars: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.out, self.clock = out, clock
        self.bars = _rich_bars(out) if out is not None and bars else None

    @contextmanager
    def stage(self, name: str, total: float | None = None, unit: str = "steps") -> Generator[Step]:
        """One loop; call the yielded step with what was finished since the last call.

        Args:
            name: what is being done, e.g. ``fit reranker``.
            total: how much there is to do, in `unit`; None when unknown.
            unit: plural noun, e.g. ``lists``.
        """
        step = Step(self, name, total, unit)
        try:
            yield step
        finally:
            step.remove_bar()
        elapsed_s = step.elapsed_s
        if elapsed_s >= QUIET_S:
            amount = f"{step.done:,.0f} {unit} " if step.done else ""
            rate = f" ({_rate(step.worked / elapsed_s, unit)})" if step.worked else ""
            self.say(f"{name}: {amount}in {format_seconds(elapsed_s)}{rate}")

    def say(self, text: str) -> None:
        """One line of news, above the bars. It may quote what others wrote."""
        text = shown(text)
        if self.bars is not None:
            self.bars.console.print(text, markup=False, highlight=False)
        elif self.out is not None:
            print(text, file=self.out, flush=True)


class Step:
    """How far one stage is. Made by `Progress.stage`."""

    def __init__(self, progress: Progress, name: str, total: float | None, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = self.found = 0.0
        self._whole: tuple[float, float] | None = None  # worked in whole batches, and the seconds they took
        self._progress, self._bars = progress, progress.bars
        self._start_s = self._last_line_s = self._last_call_s = progress.clock()
        self._first_call_s: float | None = None
        if self._bars is not None:
            self._bar = self._bars.add_task(name, total=total, amount=self._amount(), left="")
            self._bars.start()

    def __call__(self, amount: float = 1) -> None:
        """Count `amount` more as done, in the stage's unit."""
        self._count(amount, 0)

    def skip(self, amount: float) -> None:
        """Count `amount` as found done: it moves the bar and says nothing about the rate."""
        self._count(amount, amount)

    def _count(self, amount: float, found: float) -> None:
        now_s = self._progress.clock()
        self._note_whole_batches(now_s)
        self.done, self.found = self.done + amount, self.found + found
        if self._bars is not None:
            self._bars.update(self._bar, completed=self.done, amount=self._amount(), left=self._left())
        elif now_s - self._last_line_s >= LINE_EVERY_S:
            self._last_line_s = now_s
            self._progress.say(f"{self.name}: {self._amount()}{self._left()}")

    def _note_whole_batches(self, now_s: float) -> None:
        """What was done before now is whole batches if a pause came after it, or if it flows without pauses."""
        if self.worked and self._first_call_s is None:
            self._first_call_s = self._last_call_s
        is_after_pause = now_s - self._last_call_s >= PAUSE_S
        flows = self._first_call_s is not None and self._last_call_s - self._first_call_s >= QUIET_S
        if self.worked and (is_after_pause or flows):
            self._whole = (self.worked, self._last_call_s - self._start_s)
        self._last_call_s = now_s

    @property
    def worked(self) -> float:
        """What was done here and now, without what was found done."""
        return self.done - self.found

    @property
    def elapsed_s(self) -> float:
        """Seconds since the stage began."""
        return self._progress.clock() - self._start_s

    def remove_bar(self) -> None:
        """Take the stage's bar away; the last one ends the drawing."""
        if self._bars is not None:
            self._bars.remove_task(self._bar)
            if not self._bars.tasks:
                self._bars.stop()

    def _amount(self) -> str:
        total = f"/{self.total:,.0f}" if self.total is not None else ""
        rate = f", {_rate(self._per_s, self.unit)}" if self._per_s else ""
        return f"{self.done:,.0f}{total} {self.unit}{rate}"

    def _left(self) -> str:
        if self.total is None or not self._per_s:
            return ""
        return f", {format_seconds(max(self.total - self.done, 0) / self._per_s)} left"

    @property
    def _per_s(self) -> float:
        """The rate of whole batches; 0 while it is not known."""
        worked, elapsed_s = self._whole or (0.0, 0.0)
        return worked / elapsed_s if elapsed_s > 0 else 0.0


def _rich_bars(out: TextIO) -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Table

    class Bars(RichProgress):
        def get_renderables(self) -> Generator[Table]:
            yield self.make_tasks_table([task for task in self.tasks if (task.elapsed or 0.0) >= QUIET_S])

    return Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[amount]}{task.fields[left]}"),
        TimeElapsedColumn(),
        console=Console(file=out),
        transient=True,
        expand=True,
    )


def format_seconds(seconds: float) -> str:
    """``8.3 s``, ``4 min 05 s`` or ``2 h 03 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def terminal_progress() -> Progress:
    """Bars when standard error is a terminal, lines otherwise."""
    return Progress(sys.stderr, bars=sys.stderr.isatty())


def _rate(per_s: float, unit: str) -> str:
    """Per second, or what is slower per hour."""
    if per_s >= 10:
        return f"{per_s:,.0f} {unit}/s"
    return f"{per_s:.2f} {unit}/s" if per_s >= 0.1 else f"{3600 * per_s:.1f} {unit}/h"


SILENT = Progress(None)
