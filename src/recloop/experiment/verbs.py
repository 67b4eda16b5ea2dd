"""The stages of every method, by the verbs that ask for them."""

from __future__ import annotations

from collections.abc import Mapping

from recloop.errors import SettingError

VERBS: Mapping[str, tuple[str, ...]] = {
    "dpo4rec": ("prepare", "sample", "encode", "reward", "pairs", "train", "evaluate", "report"),
    "rerec": ("prepare", "embed", "train", "sample", "evaluate", "report"),
    "re2llm": ("prepare", "explore", "sample", "encode", "train", "evaluate", "report"),
}


def require_verb(method: str, until: str | None) -> None:
    """SettingError unless the method has the stage; None, for all of them, is had by every method."""
    if until is not None and until not in VERBS[method]:
        raise SettingError(f"{method} has no stage {until}; use one of its stages, {', '.join(VERBS[method])}")
