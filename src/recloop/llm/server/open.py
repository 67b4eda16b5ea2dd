"""Language models behind an endpoint, as a run knows them: which is asked for what, and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recloop.llm.cache import DraftJournal
from recloop.llm.server.client import EndpointLM, EndpointTerms
from recloop.llm.server.config import SCHEME, WEIGHTS_SCHEME, Served, parse_served
from recloop.llm.weights import find_model_folder, weights_hash
from recloop.records import DraftStatus, UserDrafts

if TYPE_CHECKING:
    from recloop.llm.config import LmConfig

UNKNOWN_WEIGHTS = Path("served")  # stands for the folder of weights that only the server has


def is_served(config: LmConfig) -> bool:
    """Whether the configured language model is behind an endpoint."""
    return config.name.startswith(SCHEME)


def served_weights(config: LmConfig) -> Path:
    """The folder of the weights the server is said to hold; a stand-in where none was named.

    Raises:
        GenerationError: there is no such model on this machine.
    """
    named = config.endpoint.weights
    return find_model_folder(named.removeprefix(WEIGHTS_SCHEME)) if named else UNKNOWN_WEIGHTS


def open_served(config: LmConfig, weights: Path | None = None) -> EndpointLM:
    """The configured endpoint for these weights.

    Args:
        weights: a tuned model's folder, which the server has under another name; None or the configured
            ones for the model before any tuning.
    """
    served, base = parse_served(config.name), served_weights(config)
    terms = EndpointTerms(config.endpoint, config.pace, config.budget, config.prices)
    tokenizer = None if base == UNKNOWN_WEIGHTS else str(base)
    if weights is None or weights == base:
        revision = config.endpoint.revision
        if not revision and base != UNKNOWN_WEIGHTS:
            revision = weights_hash(base)[:16]
        return EndpointLM(served, terms, revision=revision, tokenizer=tokenizer)
    name = config.endpoint.tuned_name.format(name=weights.name, folder=weights.absolute())
    tuned = Served(served.base_url, name)
    takes_folders = "{folder}" in config.endpoint.tuned_name  # loads what a request names
    return EndpointLM(
        tuned,
        terms,
        revision=weights_hash(weights)[:16],
        tokenizer=tokenizer,
        must_be_listed=not takes_folders,
    )


def drafts_note(parts: Iterable[UserDrafts]) -> dict[str, Any]:
    """For a manifest: how many drafts have no usable text, by status; nothing if all have one."""
    drafts = (draft for part in parts for drafts_N in part.drafts_UN for draft in drafts_N)
    counts = Counter(draft.status.value for draft in drafts if draft.status is not DraftStatus.OK)
    return {"unusable": dict(sorted(counts.items()))} if counts else {}


def spending_note(journal_file: Path, purpose: str, config: LmConfig) -> dict[str, Any]:
    """For a manifest: what a stage has cost, kills included; nothing for a model in this process."""
    if not is_served(config):
        return {}
    with DraftJournal(journal_file) as journal:
        return {"served": journal.spent(purpose).as_note(config.prices)}
