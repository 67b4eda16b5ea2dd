"""`python -m benchmarks.speed`: Measures every path's speed against a named alternative."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from scripts.settings_command import settings_command


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    return settings_command(
        "python -m benchmarks.speed", (__doc__ or "").partition(": ")[2], _load, "runs/bench-speed", argv
    )


def _load() -> Any:
    from benchmarks.speed.bench import SpeedConfig, bench_speed

    return SpeedConfig, bench_speed


if __name__ == "__main__":
    sys.exit(main())
