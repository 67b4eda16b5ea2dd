"""`python -m scripts.evaluate_lm`: How truthfully does a language model describe users, and how well does it answer?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from scripts.settings_command import settings_command


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    return settings_command("python -m scripts.evaluate_lm", (__doc__ or "").partition(": ")[2], _load, argv=argv)


def _load() -> Any:
    from scripts.evaluate_lm.cli import EvaluateLmConfig, evaluation_text

    return EvaluateLmConfig, evaluation_text


if __name__ == "__main__":
    sys.exit(main())
