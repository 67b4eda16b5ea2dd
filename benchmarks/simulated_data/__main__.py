"""`python -m benchmarks.simulated_data`: Does training help where it should, and only there?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from scripts.settings_command import settings_command


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    return settings_command(
        "python -m benchmarks.simulated_data", (__doc__ or "").partition(": ")[2], _load, "runs/bench-simulated", argv
    )


def _load() -> Any:
    from benchmarks.simulated_data.bench import SimulatedBenchConfig, bench_simulated

    return SimulatedBenchConfig, bench_simulated


if __name__ == "__main__":
    sys.exit(main())
