"""Language models behind an endpoint, as a run knows them: which is asked for what, and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recloop.llm.cache import CompletionCache
from recloop.llm.server.client import EndpointLM, EndpointTerms
from recloop.llm.server.config import WEIGHTS_SCHEME, ServerModel, parse_server_name
from recloop.llm.weights import find_model_folder, weights_hash
from recloop.records import CompletionStatus, UserCompletions

if TYPE_CHECKING:
    from recloop.llm.config import LmConfig

UNKNOWN_WEIGHTS = Path("server")  # stands for the folder of weights that only the server has


def server_weights(config: LmConfig) -> Path:
    """The folder of the weights the server is said to hold; a stand-in where none was named.

    Raises:
        GenerationError: there is no such model on this machine.
    """
    named = config.endpoint.weights
    return find_model_folder(named.removeprefix(WEIGHTS_SCHEME)) if named else UNKNOWN_WEIGHTS


def open_server_lm(config: LmConfig, weights: Path | None = None) -> EndpointLM:
    """The configured endpoint for these weights.

    Args:
        weights: a trained model's folder, which the server has under another name; None or the configured
            ones for the model before any training.
    """
    server, base = parse_server_name(config.name), server_weights(config)
    terms = EndpointTerms(config.endpoint, config.pace, config.budget, config.prices)
    tokenizer = None if base == UNKNOWN_WEIGHTS else str(base)
    if weights is None or weights == base:
        revision = config.endpoint.revision
        if not revision and base != UNKNOWN_WEIGHTS:
            revision = weights_hash(base)[:16]
        return EndpointLM(server, terms, revision=revision, tokenizer=tokenizer)
    name = config.endpoint.trained_name.format(name=weights.name, folder=weights.absolute())
    trained = ServerModel(server.base_url, name)
    takes_folders = "{folder}" in config.endpoint.trained_name  # loads what a request names
    return EndpointLM(
        trained,
        terms,
        revision=weights_hash(weights)[:16],
        tokenizer=tokenizer,
        must_be_listed=not takes_folders,
    )


def completions_note(parts: Iterable[UserCompletions]) -> dict[str, Any]:
    """For a manifest: how many completions have no usable text, by status; nothing if all have one."""
    completions = (
        completion for part in parts for completions_N in part.completions_UN for completion in completions_N
    )
    counts = Counter(
        completion.status.value for completion in completions if completion.status is not CompletionStatus.OK
    )
    return {"unusable": dict(sorted(counts.items()))} if counts else {}


def usage_note(cache_file: Path, purpose: str, config: LmConfig) -> dict[str, Any]:
    """For a manifest: what a stage has cost, kills included; nothing for a model in this process."""
    if not config.uses_server:
        return {}
    with CompletionCache(cache_file) as cache:
        return {"server": cache.spent(purpose).as_note(config.prices)}
