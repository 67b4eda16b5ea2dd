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

from recloop.encoders.claims import ClaimsEncoder
from recloop.encoders.config import EncoderConfig
from recloop.encoders.polarity import SPLIT, PolarityEncoder
from recloop.encoders.sentence import MiniLmEncoder, SentenceEncoder, TextEncoder
from recloop.encoders.static import StaticEncoder
from recloop.errors import SettingError
from recloop.experiment.run_folder import RunFolder
from recloop.experiment.stages import Staged
from recloop.experiment.verbs import require_verb
from recloop.llm.bundled import bundled_lm_folder
from recloop.llm.config import LmConfig
from recloop.llm.language_model import LanguageModel
from recloop.llm.local import TransformersLM
from recloop.llm.server.open import uses_server, open_server_lm, server_weights
from recloop.llm.weights import find_model_folder, weights_hash
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
    if lm is None and uses_server(config.lm):
        first = LmRef("untuned", server_weights(config.lm), open_server_lm(config.lm).name)
    elif lm is None:
        folder = lm_folder(config.lm)
        first = LmRef("untuned", folder, weights_hash(folder))
    else:
        first = LmRef("untuned", OWN_LM, lm.name)

    @lru_cache(maxsize=1)
    def open_lm(folder: Path) -> LanguageModel:
        if lm is not None:
            return lm
        if uses_server(config.lm):
            return open_server_lm(config.lm, folder)
        return open_local(config.lm, folder)

    @lru_cache(maxsize=1)
    def open_encoder() -> TextEncoder:
        return encoder or load_encoder(config.encoder)

    inputs = lru_cache(maxsize=1)(partial(encoder_inputs, config.encoder, encoder))
    return Loop(run, progress, until, config, first, open_lm, open_encoder, inputs)


def load_lm(config: LmConfig) -> LanguageModel:
    """The configured language model, in this process or served."""
    if uses_server(config):
        return open_server_lm(config)
    return open_local(config, lm_folder(config))


def open_local(config: LmConfig, folder: Path) -> TransformersLM:
    """The model in `folder`, the configured one or one that was trained, in this process."""
    return TransformersLM(
        folder, device=config.device, batch_tokens=config.batch_tokens, load_in_4bit=config.load_in_4bit
    )


def lm_folder(config: LmConfig) -> Path:
    """Where the configured language model lies; a name is looked up, and fetched where that is allowed."""
    kind, _, name = config.name.partition(":")
    match kind:
        case "bundled":
            return bundled_lm_folder("answers" if name == "answers" else "summaries")
        case "transformers":
            return find_model_folder(name)
        case _:
            raise SettingError(
                f"weights are wanted here, and {config.name} has none on this machine; "
                f"use bundled or transformers:NAME_OR_FOLDER"
            )


def load_encoder(config: EncoderConfig) -> TextEncoder:
    """The configured text encoder."""
    encoder = _whole_text_encoder(config.name)
    return PolarityEncoder(encoder) if config.by_polarity else encoder


def encoder_inputs(config: EncoderConfig, own: TextEncoder | None) -> dict[str, str]:
    """What a stage that encodes depends on beside its settings: weights that are not recloop's own, rules.

    Args:
        own: an encoder passed as an object, in place of the configured one.
    """
    kind, _, name = config.name.partition(":")
    if own is not None:
        return {"encoder": own.name}
    rules = {"split": SPLIT} if config.by_polarity else {}
    return rules | ({"encoder": weights_hash(find_model_folder(name))} if kind == "sentence" else {})


def _whole_text_encoder(configured: str) -> TextEncoder:
    kind, _, name = configured.partition(":")
    match kind:
        case "minilm":
            return MiniLmEncoder()
        case "static":
            return StaticEncoder()
        case "claims":
            return ClaimsEncoder()
        case "sentence":
            return SentenceEncoder(name)
        case _:
            raise SettingError(
                f"encoder.name must be minilm, static, claims or sentence:NAME_OR_FOLDER, got {configured}"
            )


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for every purpose of a run's seed, the same on every machine."""
    return zlib.crc32(f"{seed} {purpose}".encode())
