"""recloop closes the loop between a recommender and a language model, and measures it honestly.

The names below are the public API; each is imported when it is first used, so that ``import recloop`` is quick.

Example:
    >>> import recloop as rl
    >>> log = rl.load_log()
    >>> lists = rl.candidate_lists(log, protocol="kar")
    >>> len(lists.test) > 0
    True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recloop.data.impressions import lists_from_impressions as lists_from_impressions
    from recloop.data.impressions import with_impressions as with_impressions
    from recloop.data.lists import candidate_lists as candidate_lists
    from recloop.data.load import load_log as load_log
    from recloop.encoders.load import encode as encode
    from recloop.encoders.load import load_encoder as load_encoder
    from recloop.encoders.sentence import TextEncoder as TextEncoder
    from recloop.errors import RecloopError as RecloopError
    from recloop.evaluation.results import Results as Results
    from recloop.evaluation.score import compare_variants as compare_variants
    from recloop.evaluation.score import evaluate as evaluate
    from recloop.experiment.step import StepKind as StepKind
    from recloop.llm.generate import generate as generate
    from recloop.llm.language_model import LanguageModel as LanguageModel
    from recloop.llm.load import load_lm as load_lm
    from recloop.methods.method import Method as Method
    from recloop.methods.predict import FinishedRun as FinishedRun
    from recloop.methods.predict import load as load
    from recloop.methods.run import run as run
    from recloop.methods.study import Study as Study
    from recloop.methods.update import Update as Update
    from recloop.methods.update import update as update
    from recloop.prompts.text_truth import truth_check as truth_check
    from recloop.prompts.user_profile import PromptTemplate as PromptTemplate
    from recloop.prompts.user_profile import profile_prompts as profile_prompts
    from recloop.records import CandidateLists as CandidateLists
    from recloop.records import Completion as Completion
    from recloop.records import Group as Group
    from recloop.records import Lists as Lists
    from recloop.records import Log as Log
    from recloop.records import Pair as Pair
    from recloop.records import Prompt as Prompt
    from recloop.records import Rewards as Rewards
    from recloop.records import UserCompletions as UserCompletions
    from recloop.records import UserVectors as UserVectors
    from recloop.rerankers.fitted import FittedReranker as FittedReranker
    from recloop.rerankers.metrics import compute_metric as compute_metric
    from recloop.rerankers.protocol import Reranker as Reranker
    from recloop.rerankers.train import fit_reranker as fit_reranker
    from recloop.rewards.function import RewardFunction as RewardFunction
    from recloop.rewards.preference_pairs import preference_pairs as preference_pairs
    from recloop.rewards.reranker_reward import reranker_reward as reranker_reward
    from recloop.training.dpo import train_dpo as train_dpo
    from recloop.training.sft import train_sft as train_sft

__version__ = "0.2.0"

_NAMES_IN = {
    "data.impressions": "lists_from_impressions with_impressions",
    "data.lists": "candidate_lists",
    "data.load": "load_log",
    "encoders.load": "encode load_encoder",
    "encoders.sentence": "TextEncoder",
    "errors": "RecloopError",
    "evaluation.score": "compare_variants evaluate",
    "evaluation.results": "Results",
    "experiment.step": "StepKind",
    "llm.language_model": "LanguageModel",
    "llm.load": "load_lm",
    "llm.generate": "generate",
    "methods.method": "Method",
    "methods.predict": "FinishedRun load",
    "methods.run": "run",
    "methods.study": "Study",
    "methods.update": "Update update",
    "prompts.text_truth": "truth_check",
    "prompts.user_profile": "PromptTemplate profile_prompts",
    "records": "CandidateLists Completion Group Lists Log Pair Prompt Rewards UserCompletions UserVectors",
    "rerankers.fitted": "FittedReranker",
    "rerankers.metrics": "compute_metric",
    "rerankers.protocol": "Reranker",
    "rerankers.train": "fit_reranker",
    "rewards.preference_pairs": "preference_pairs",
    "rewards.reranker_reward": "reranker_reward",
    "rewards.function": "RewardFunction",
    "training.dpo": "train_dpo",
    "training.sft": "train_sft",
}
_MODULE_OF = {name: module for module, names in _NAMES_IN.items() for name in names.split()}
__all__ = ["__version__", *_MODULE_OF]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"recloop has no {name}; its names are {', '.join(_MODULE_OF)}")
    return getattr(import_module(f"recloop.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
