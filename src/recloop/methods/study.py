"""What the steps of a method are handed: what was asked for, and the models that are opened on demand.

A language model is named by where its weights lie (`LmRef`) and loaded only by a step that has something left to write:
a finished run is read back without loading any.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recloop.encoders.load import encoder_from_config, encoder_inputs
from recloop.encoders.ray_encoder import RayEncoder
from recloop.encoders.sentence import encode_texts
from recloop.errors import SettingError
from recloop.experiment.step import Steps
from recloop.llm.load import lm_digest, lm_folder, lm_from_config
from recloop.llm.ray_lm import RayLM, shards_of

if TYPE_CHECKING:
    from recloop.encoders.sentence import TextEncoder
    from recloop.experiment.run_folder import RunFolder
    from recloop.llm.language_model import LanguageModel
    from recloop.progress import Progress
    from recloop.records import Log

COMPLETIONS_FILE, VECTORS_FILE = "completions.sqlite", "vectors.sqlite"  # of a run: shared by its steps
OWN_LM = Path("own")  # stands for the folder of a language model that was passed as an object


@dataclass(frozen=True, slots=True)
class LmRef:
    """A language model by its weights.

    label: names its steps and its variant, e.g. ``untuned``.
    digest: of the weights; an input of every step that reads them.
    """

    label: str
    folder: Path
    digest: str


@dataclass(frozen=True, slots=True)
class OwnParts:
    """Objects that a user passes to a run in place of what a setting would name; None for each that a setting names.

    log: the interactions, in place of the ``data`` section.
    lm: the language model; it cannot be trained.
    encoder: turns texts into vectors.
    reranker: the kind that is fitted as reward model and as evaluator (`recloop.rerankers`).
    reward: gives the rewards in place of the reward model (`recloop.rewards`).
    prompt: makes the prompts (`recloop.prompts`).
    """

    log: Log | None = None
    lm: LanguageModel | None = None
    encoder: TextEncoder | None = None
    reranker: Any = None
    reward: Any = None
    prompt: Any = None

    def identities(self) -> dict[str, str]:
        """What tells the objects from others among the inputs of steps, by part; only the parts that are given."""
        parts = {"reranker": self.reranker, "reward": self.reward, "prompt": self.prompt}
        return {name: identity_of(part) for name, part in parts.items() if part is not None}


@dataclass(frozen=True, slots=True)
class Study(Steps):
    """One run of a method that lets a language model write and an encoder read.

    config: the settings of the method; it has the sections ``lm`` and ``encoder``.
    first_lm: the language model before any training.
    open_lm, open_encoder: load a model; asked again for the same, they give the same object.
    encoder: what a step that encodes depends on beside its settings; asked when something is to be encoded.
    own: objects in place of names.
    """

    config: Any
    first_lm: LmRef
    open_lm: Callable[[Path], LanguageModel]
    open_encoder: Callable[[], TextEncoder]
    encoder: Callable[[], Mapping[str, str]]
    own: OwnParts = field(default_factory=OwnParts)


def open_study(
    config: Any, run: RunFolder, progress: Progress, until: str | None, own: OwnParts | None = None
) -> Study:
    """The study of a run; no model is loaded yet."""
    own = own or OwnParts()
    lm = own.lm
    if lm is not None and config.engine == "ray":
        raise SettingError(
            f"workers of a cluster open a model by its name, got the object {lm.name}; use engine=process"
        )
    folder, digest = (lm_folder(config.lm), lm_digest(config.lm)) if lm is None else (OWN_LM, lm.name)

    @lru_cache(maxsize=1)
    def open_lm(folder: Path) -> LanguageModel:
        if lm is not None:
            return lm
        if config.engine == "ray":
            return RayLM(config.lm, folder, config.ray, shards_of(run.path / COMPLETIONS_FILE))
        return lm_from_config(config.lm, folder)

    @lru_cache(maxsize=1)
    def open_encoder() -> TextEncoder:
        if own.encoder is None and config.engine == "ray":
            return RayEncoder(config.encoder, config.ray)
        return own.encoder or encoder_from_config(config.encoder)

    inputs = lru_cache(maxsize=1)(partial(encoder_inputs, config.encoder, own.encoder))
    return Study(run, progress, until, config, LmRef("untuned", folder, digest), open_lm, open_encoder, inputs, own)


def try_encoder(study: Study) -> None:
    """Encode a text by an encoder that others made, to see that it is there and works; the named ones come with us."""
    if study.own.encoder is not None or study.config.encoder.name.startswith("sentence:"):
        encode_texts(study.open_encoder(), ["A text, to see that the encoder is there."])


def own_parts(method: str, objects: Mapping[str, Any], *allowed: str) -> OwnParts:
    """The objects that were passed to a run; SettingError for one that its method does not take."""
    for name in objects:
        if name not in allowed:
            raise SettingError(f"{method} takes {' and '.join(allowed)} as objects, got {name}; name it by a setting")
    return OwnParts(**objects)


def require_trainable(own: OwnParts, rounds: int) -> None:
    """SettingError where a language model that was passed as an object would have to be trained."""
    if own.lm is not None and rounds:
        raise SettingError(
            f"an lm passed as an object cannot be trained, got {rounds=}; use rounds=0, or a folder in lm.name"
        )


def identity_of(part: Any) -> str:
    """What an object is known by: its ``name``, or the name of its function or class."""
    name = getattr(part, "name", None) or getattr(part, "__qualname__", None) or type(part).__qualname__
    return f"{getattr(part, '__module__', '')}.{name}"


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for every purpose of a run's seed, the same on every machine."""
    return zlib.crc32(f"{seed} {purpose}".encode())
