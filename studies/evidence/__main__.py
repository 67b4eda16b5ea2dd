"""`python -m studies.evidence`: Runs the studies of the evidence and writes docs/results.md.

Without --run it only writes the page and names the runs that are missing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.settings_command import settings_command

OUT = "docs"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    return settings_command("python -m studies.evidence", (__doc__ or "").partition(": ")[2], _load, OUT, argv)


def _load() -> Any:
    from studies.evidence import bench

    def work(config: bench.QualityConfig, out: Path, progress: Any) -> str:
        if not config.quick:
            return bench.bench_quality(config, out, progress)
        return bench.bench_quality(bench.quick(config), bench.QUICK_FOLDER if out == Path(OUT) else out, progress)

    return bench.QualityConfig, work


if __name__ == "__main__":
    sys.exit(main())
