"""What every stage of DPO4Rec is handed.

The language models of a run are named by where their weights lie (`LmRef`) and loaded only by a stage that
has something left to write: a finished run is read back without loading any.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from recloop.encoders.load import encoder_from_config, encoder_inputs
from recloop.encoders.sentence import TextEncoder
from recloop.errors import SettingError
from recloop.experiment.run_folder import RunFolder
from recloop.experiment.stages import Staged
from recloop.experiment.verbs import require_verb
from recloop.llm.language_model import LanguageModel
from recloop.llm.load import lm_digest, lm_folder, lm_from_config
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.progress import Progress

OWN_LM = Path("own")  # stands for the folder of a language model that was passed as an object


@dataclass(frozen=True, slots=True)
class LmRef:
    """A language model by its weights.

    label: names its stages and its row, e.g. ``untuned``.
    digest: of the weights; an input of every stage that reads them.
    """

    label: str
    folder: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Loop(Staged):
    """One run: what was asked for, and the models it opens on demand.

    first_lm: the language model before any training.
    open_lm, open_encoder: load a model; asked again for the same, they give the same object.
    encoder: what `encoder_inputs` says of the encoder, asked when something is to be encoded.
    """

    config: Dpo4RecConfig
    first_lm: LmRef
    open_lm: Callable[[Path], LanguageModel]
    open_encoder: Callable[[], TextEncoder]
    encoder: Callable[[], Mapping[str, str]]


def open_loop(
    config: Dpo4RecConfig,
    run: RunFolder,
    progress: Progress,
    until: str | None,
    lm: LanguageModel | None,
    encoder: TextEncoder | None,
) -> Loop:
    """The loop of a run; no model is loaded yet.

    Args:
        lm, encoder: objects to use in place of the configured ones.

    Raises:
        SettingError: an unknown stage, or rounds of training for a language model passed as an object.
    """
    require_verb("dpo4rec", until)
    if lm is not None and config.rounds:
        raise SettingError(
            f"a language model passed as an object cannot be trained, got rounds={config.rounds}; "
            f"use rounds=0, or name a model folder in lm.name"
        )
    if lm is None:
        first = LmRef("untuned", lm_folder(config.lm), lm_digest(config.lm))
    else:
        first = LmRef("untuned", OWN_LM, lm.name)

    @lru_cache(maxsize=1)
    def open_lm(folder: Path) -> LanguageModel:
        return lm or lm_from_config(config.lm, folder)

    @lru_cache(maxsize=1)
    def open_encoder() -> TextEncoder:
        return encoder or encoder_from_config(config.encoder)

    inputs = lru_cache(maxsize=1)(partial(encoder_inputs, config.encoder, encoder))
    return Loop(run, progress, until, config, first, open_lm, open_encoder, inputs)


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for every purpose of a run's seed, the same on every machine."""
    return zlib.crc32(f"{seed} {purpose}".encode())
