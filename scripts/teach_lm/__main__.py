"""`python -m scripts.teach_lm`: Teaches a language model that others made to read recloop's prompts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from scripts.settings_command import settings_command


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    return settings_command("python -m scripts.teach_lm", (__doc__ or "").partition(": ")[2], _load, "runs/teach", argv)


def _load() -> Any:
    from scripts.teach_lm.teach import TeachConfig, teach

    return TeachConfig, teach


if __name__ == "__main__":
    sys.exit(main())
