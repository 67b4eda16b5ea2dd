"""Progress of long loops: rate and time left, on a terminal or in a log file.

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
        self._progress, self._bars = progress, progress.bars
        self._start_s = self._last_line_s = progress.clock()
        if self._bars is not None:
            self._bar = self._bars.add_task(name, total=total, amount=self._amount())
            self._bars.start()

    def __call__(self, amount: float = 1) -> None:
        """Count `amount` more as done, in the stage's unit."""
        self.done += amount
        if self._bars is not None:
            self._bars.update(self._bar, completed=self.done, amount=self._amount())
        elif self._progress.clock() - self._last_line_s >= LINE_EVERY_S:
            self._last_line_s = self._progress.clock()
            self._progress.say(f"{self.name}: {self._amount()}{self._left()}")

    def skip(self, amount: float) -> None:
        """Count `amount` as found done: it moves the bar and says nothing about the rate."""
        self.found += amount
        self(amount)

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
        elapsed_s = self.elapsed_s
        total = f"/{self.total:,.0f}" if self.total is not None else ""
        rate = f", {_rate(self.worked / elapsed_s, self.unit)}" if elapsed_s > 0 else ""
        return f"{self.done:,.0f}{total} {self.unit}{rate}"

    def _left(self) -> str:
        if self.total is None or self.worked == 0:
            return ""
        return f", {format_seconds(max(self.total - self.done, 0) / self.worked * self.elapsed_s)} left"


def _rich_bars(out: TextIO) -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Table

    class Bars(RichProgress):
        def get_renderables(self) -> Generator[Table]:
            yield self.make_tasks_table([task for task in self.tasks if (task.elapsed or 0.0) >= QUIET_S])

    return Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
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
