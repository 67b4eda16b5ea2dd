"""Language models by name: in this process, or behind a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recloop.errors import SettingError
from recloop.llm.bundled import bundled_lm_folder
from recloop.llm.config import LmConfig, LocalLmConfig
from recloop.llm.language_model import LanguageModel
from recloop.llm.local import TransformersLM
from recloop.llm.server.client import ServerLM
from recloop.llm.server.config import WEIGHTS_SCHEME
from recloop.llm.server.redaction import PromptHook
from recloop.llm.smollm2 import base_folder, taught_folder
from recloop.llm.weights import find_model_folder, weights_hash
from recloop.settings import validate

UNKNOWN_WEIGHTS = Path("server")  # stands for the folder of weights that only the server has


def load_lm(name: str | LanguageModel = "bundled", *, hook: PromptHook | None = None, **settings: Any) -> LanguageModel:
    """The language model of this name; an object of your own is returned as it is.

    Args:
        name: ``bundled`` (3.3M parameters) writes preferences; ``bundled:answers`` (3.3M) ranks and answers
            requests; ``smollm2`` (135M) does both on any log, ``smollm2:base`` is the same as it was published;
            ``transformers:NAME_OR_FOLDER`` is a causal LM with a chat template;
            ``openai:BASE_URL#MODEL`` is one behind an OpenAI-compatible server.
        hook: for a server: called with every prompt before it is sent, after redaction; returns the one to send.
        settings: other fields of `LmConfig`, e.g. ``device``, ``batch_tokens``, ``load_in_4bit``. For a server:
            ``server``, ``pace``, ``budget`` and ``prices``, each a dictionary.

    Raises:
        SettingError: an unknown name or setting, or one that is not read for this kind of model.
        GenerationError: there is no such model, or it cannot be read.

    Example:
        >>> load_lm("bundled", device="cpu").name[:10]
        'llama-3.3M'
    """
    if not isinstance(name, str):
        if settings or hook is not None:
            raise SettingError("settings are for a named language model, got some with an object; leave them out")
        return name
    for setting in ("temperature", "top_p", "max_tokens"):
        if setting in settings:
            raise SettingError(f"{setting} says how to sample, got it for load_lm; pass it to generate")
    return lm_from_config(validate(LmConfig, {"name": name, **settings}), hook=hook)


def lm_from_config(config: LmConfig, folder: Path | None = None, hook: PromptHook | None = None) -> LanguageModel:
    """The configured language model; with the `folder` of one that was trained from it, the trained one."""
    if config.uses_server:
        return _server_lm(config, folder, hook)
    if hook is not None:
        raise SettingError(f"a hook is called before a prompt is sent, got one for {config.name}, which sends none")
    return open_local(config, folder or lm_folder(config))


def open_local(config: LocalLmConfig, folder: Path) -> TransformersLM:
    """The model in `folder`, in this process."""
    return TransformersLM(
        folder, device=config.device, batch_tokens=config.batch_tokens, load_in_4bit=config.load_in_4bit
    )


def lm_folder(config: LmConfig) -> Path:
    """Where the configured weights are here, a stand-in where only a server has them; GenerationError for none."""
    if config.uses_server:
        weights = config.server.weights
        return find_model_folder(weights.removeprefix(WEIGHTS_SCHEME)) if weights else UNKNOWN_WEIGHTS
    return local_folder(config.name)


def local_folder(lm_name: str) -> Path:
    """Where the weights of a model in this process are; GenerationError when there are none."""
    kind, _, name = lm_name.partition(":")
    if kind == "smollm2":
        return base_folder() if name else taught_folder()
    return find_model_folder(name) if kind == "transformers" else bundled_lm_folder("answers" if name else "summaries")


def lm_digest(config: LmConfig) -> str:
    """What identifies the configured language model among a step's inputs."""
    return _server_lm(config).name if config.uses_server else weights_hash(lm_folder(config))


def _server_lm(config: LmConfig, folder: Path | None = None, hook: PromptHook | None = None) -> ServerLM:
    base = lm_folder(config)
    tokenizer = None if base == UNKNOWN_WEIGHTS else str(base)
    if folder is None or folder == base:
        known = None if config.server.revision or tokenizer is None else weights_hash(base)[:16]
        return ServerLM(config, revision=known, tokenizer=tokenizer, hook=hook)
    name = config.server.trained_name.format(name=folder.name, folder=folder.absolute())
    return ServerLM(config, trained_name=name, revision=weights_hash(folder)[:16], tokenizer=tokenizer, hook=hook)
