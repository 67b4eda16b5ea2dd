"""`python -m scripts.pretrain_lm`: Makes the bundled language model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from scripts.settings_command import settings_command


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    return settings_command(
        "python -m scripts.pretrain_lm", (__doc__ or "").partition(": ")[2], _load, "runs/pretrain", argv
    )


def _load() -> Any:
    from scripts.pretrain_lm.pretrain import PretrainConfig, pretrain

    return PretrainConfig, pretrain


if __name__ == "__main__":
    sys.exit(main())
