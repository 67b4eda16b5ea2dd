"""Progress of long loops: rate and time left, on a terminal or in a log file.

A stage that ends within two seconds shows nothing. On a terminal a stage is a bar while it runs; anywhere
else it is one line every ten seconds. Either way it leaves one line when it ends.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

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
        self._out = out
        self._clock = clock
        self._bars = _Bars(out) if out is not None and bars else None

    @contextmanager
    def stage(self, name: str, total: float | None = None, unit: str = "steps") -> Generator[Step]:
        """One loop; call the yielded step with what was finished since the last call.

        Args:
            name: what is being done, e.g. ``fit reranker``.
            total: how much there is to do, in `unit`; None when unknown.
            unit: plural noun, e.g. ``lists``.
        """
        step = Step(name, total, unit, self._out, self._bars, self._clock)
        try:
            yield step
        except BaseException:
            step.close(finished=False)
            raise
        step.close(finished=True)

    def say(self, text: str) -> None:
        """One line of news, above the bars."""
        if self._out is not None:
            _print_line(text, self._out, self._bars)


class Step:
    """How far one stage is. Made by `Progress.stage`."""

    def __init__(
        self,
        name: str,
        total: float | None,
        unit: str,
        out: TextIO | None,
        bars: _Bars | None,
        clock: Callable[[], float],
    ) -> None:
        self.name, self.total, self.unit, self.done = name, total, unit, 0.0
        self.found = 0.0
        self._out, self._bars, self._clock = out, bars, clock
        self._start_s = clock()
        self._last_line_s = self._start_s
        self._bar = bars.later(self) if bars is not None else None

    def __call__(self, amount: float = 1) -> None:
        """Count `amount` more as done, in the stage's unit."""
        self.done += amount
        if self._bar is not None:
            self._bar.update(self.done)
        elif self._out is not None:
            now_s = self._clock()
            if now_s - self._last_line_s >= LINE_EVERY_S:
                self._last_line_s = now_s
                _print_line(describe(self, now_s - self._start_s), self._out, None)

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
        return self._clock() - self._start_s

    def close(self, *, finished: bool) -> None:
        """End the stage: take its bar away and, after two seconds or more, leave one line."""
        if self._bar is not None:
            self._bar.remove()
        elapsed_s = self.elapsed_s
        if self._out is not None and finished and elapsed_s >= QUIET_S:
            amount = f"{self.done:,.0f} {self.unit} " if self.done else ""
            rate = f" ({_rate(self.worked / elapsed_s, self.unit)})" if self.worked else ""
            _print_line(f"{self.name}: {amount}in {format_seconds(elapsed_s)}{rate}", self._out, self._bars)


class _Bars:
    """Rich bars, drawn only for stages older than two seconds."""

    def __init__(self, out: TextIO) -> None:
        from rich.console import Console

        self.console = Console(file=out)
        self.live: RichProgress | None = None
        self.lock = threading.RLock()
        self.num_shown = 0

    def later(self, step: Step) -> _Bar:
        return _Bar(self, step)

    def start(self) -> RichProgress:
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        if self.live is None:
            self.live = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[amount]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
                expand=True,
            )
            self.live.start()
        self.num_shown += 1
        return self.live

    def stop(self) -> None:
        self.num_shown -= 1
        if self.num_shown == 0 and self.live is not None:
            self.live.stop()
            self.live = None


class _Bar:
    def __init__(self, bars: _Bars, step: Step) -> None:
        self._bars, self._step = bars, step
        self._task: TaskID | None = None
        self._timer = threading.Timer(QUIET_S, self._show)
        self._timer.daemon = True
        self._timer.start()

    def _show(self) -> None:
        with self._bars.lock:
            live = self._bars.start()
            self._task = live.add_task(
                self._step.name,
                total=self._step.total,
                completed=int(self._step.done),
                amount=_amount(self._step, self._step.elapsed_s),
            )

    def update(self, done: float) -> None:
        live, task = self._bars.live, self._task
        if task is not None and live is not None:
            live.update(task, completed=done, amount=_amount(self._step, self._step.elapsed_s))

    def remove(self) -> None:
        self._timer.cancel()
        with self._bars.lock:
            if self._task is not None and self._bars.live is not None:
                self._bars.live.remove_task(self._task)
                self._task = None
                self._bars.stop()


def describe(step: Step, elapsed_s: float) -> str:
    """One line: how far, how fast, how long still."""
    line = f"{step.name}: {_amount(step, elapsed_s)}"
    if step.total is None or step.worked == 0:
        return line
    return f"{line}, {format_seconds(max(step.total - step.done, 0) / step.worked * elapsed_s)} left"


def format_seconds(seconds: float) -> str:
    """``8.3 s``, ``4 min 05 s`` or ``2 h 03 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def terminal_progress(out: TextIO | None = None) -> Progress:
    """Bars when `out` (standard error by default) is a terminal, lines otherwise."""
    stream = sys.stderr if out is None else out
    return Progress(stream, bars=stream.isatty())


def _amount(step: Step, elapsed_s: float) -> str:
    total = f"/{step.total:,.0f}" if step.total is not None else ""
    rate = f", {_rate(step.worked / elapsed_s, step.unit)}" if elapsed_s > 0 else ""
    return f"{step.done:,.0f}{total} {step.unit}{rate}"


def _rate(per_s: float, unit: str) -> str:
    """Per second, or what is slower per hour."""
    if per_s >= 10:
        return f"{per_s:,.0f} {unit}/s"
    return f"{per_s:.2f} {unit}/s" if per_s >= 0.1 else f"{3600 * per_s:.1f} {unit}/h"


def _print_line(text: str, out: TextIO, bars: _Bars | None) -> None:
    if bars is not None:
        bars.console.print(text, markup=False, highlight=False)
    else:
        print(text, file=out, flush=True)


SILENT = Progress(None)
