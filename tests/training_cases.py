"""Prompts and pairs that several training tests share."""

from recloop.progress import SILENT
from recloop.records import Pair, Prompt
from recloop.training.dpo import run_dpo
from recloop.training.result import TrainingRun

LIKED, DISLIKED = "By genre: likes Drama.", "By genre: likes Comedy."


def make_prompts(num_users):
    """Prompts of different lengths."""
    lines = ['"The Glass Harbour" | 1990s | Drama', '"Night Rails" | 1980s | War']
    return {
        user: Prompt(user, "Summarise.", "\n".join([*lines[: 1 + user % 2], f"{user} stars"]), 1, 0)
        for user in range(num_users)
    }


def make_pairs(num_users, chosen=LIKED, rejected=DISLIKED):
    return tuple(Pair(0, user, 0, 1, chosen, rejected, 1.0, 0.0) for user in range(num_users))


def train_dpo(lm, reference, prompts, pairs, config, out, seed, progress=SILENT, scratch=None):
    return run_dpo(TrainingRun(lm, out, seed, reference, scratch, progress), prompts, pairs, config)
