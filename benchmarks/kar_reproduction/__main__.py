"""`python -m benchmarks.kar_reproduction`: Reproduces published numbers on MovieLens-1M."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from scripts.settings_command import settings_command


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    return settings_command(
        "python -m benchmarks.kar_reproduction",
        (__doc__ or "").partition(": ")[2],
        _load,
        "runs/bench-reproduction",
        argv,
    )


def _load() -> Any:
    from benchmarks.kar_reproduction.bench import ReproductionConfig, run_reproduction

    return ReproductionConfig, run_reproduction


if __name__ == "__main__":
    sys.exit(main())
