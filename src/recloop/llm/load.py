"""Language models by name: in this process, or behind a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recloop.errors import SettingError
from recloop.llm.bundled import bundled_lm_folder
from recloop.llm.config import LmConfig
from recloop.llm.language_model import LanguageModel
from recloop.llm.local import TransformersLM
from recloop.llm.server.open import open_server_lm, server_weights
from recloop.llm.weights import find_model_folder, weights_hash
from recloop.settings import validate

SAMPLING_SETTINGS = ("temperature", "top_p", "max_tokens")


def load_lm(name: str | LanguageModel = "bundled", **settings: Any) -> LanguageModel:
    """The language model of this name; an object of your own is returned as it is.

    Args:
        name: ``bundled`` (3.3M parameters) writes preferences, ``bundled:answers`` (3.3M too) ranks and answers
            requests; ``transformers:NAME_OR_FOLDER`` is a causal LM with a chat template;
            ``openai:BASE_URL#MODEL`` is one behind an OpenAI-compatible server.
        settings: fields of `recloop.llm.config.LmConfig` that say how it is loaded or asked, e.g. ``device``,
            ``batch_tokens``, ``load_in_4bit``; ``endpoint``, ``pace``, ``budget`` and ``prices`` for a server.

    Raises:
        SettingError: an unknown name or setting, or one that is not read for this kind of model.
        GenerationError: there is no such model, or it cannot be read.

    Example:
        >>> load_lm("bundled", device="cpu").name[:10]
        'llama-3.3M'
    """
    given = [setting for setting in SAMPLING_SETTINGS if setting in settings]
    if given:
        raise SettingError(f"{given[0]} says how to sample, got it for load_lm; pass it to recloop.generate")
    if isinstance(name, str):
        return lm_from_config(validate(LmConfig, {"name": name, **settings}))
    if settings:
        raise SettingError(f"settings are for a named model, got {', '.join(settings)} with an object; leave them out")
    return name


def lm_from_config(config: LmConfig, folder: Path | None = None) -> LanguageModel:
    """The configured language model, or the one that was trained from it.

    Args:
        folder: of the trained one; None or the configured folder for the model before any training.
    """
    if config.uses_server:
        return open_server_lm(config, folder)
    return open_local(config, folder or lm_folder(config))


def open_local(config: LmConfig, folder: Path) -> TransformersLM:
    """The model in `folder`, in this process."""
    return TransformersLM(
        folder, device=config.device, batch_tokens=config.batch_tokens, load_in_4bit=config.load_in_4bit
    )


def lm_folder(config: LmConfig) -> Path:
    """Where the configured weights are on this machine; a stand-in where only a server has them.

    Raises:
        GenerationError: there is no such model.
    """
    kind, _, name = config.name.partition(":")
    match kind:
        case "bundled":
            return bundled_lm_folder("answers" if name == "answers" else "summaries")
        case "transformers":
            return find_model_folder(name)
        case _:
            return server_weights(config)


def lm_digest(config: LmConfig) -> str:
    """What identifies the configured language model among a stage's inputs."""
    return open_server_lm(config).name if config.uses_server else weights_hash(lm_folder(config))
