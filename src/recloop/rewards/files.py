"""The files of rewards and pairs: ``rewards.parquet``, ``pairs.parquet``, ``pairs.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import polars as pl

from recloop.errors import DataError
from recloop.files import atomic_write_json, atomic_write_text
from recloop.records import Group, Pair, Prompt, Rewards
from recloop.rewards.function import messages_of_prompt

REWARD_COLUMNS = ("round", "user_id", "split", "completion", "reward")
PAIR_COLUMNS = {
    "round": pl.Int64, "user": pl.String, "chosen_completion": pl.Int64, "rejected_completion": pl.Int64,
    "chosen": pl.String, "rejected": pl.String, "chosen_reward": pl.Float32, "rejected_reward": pl.Float32,
    "is_rejected_finished": pl.Boolean,
}  # fmt: skip
# LLaMA-Factory wants one message where TRL wants a list of messages; both find theirs in every row.
LLAMA_FACTORY_COLUMNS = {"messages": "prompt", "chosen": "chosen_message", "rejected": "rejected_message"}
LLAMA_FACTORY_TAGS = {"role_tag": "role", "content_tag": "content"} | {
    f"{role}_tag": role for role in ("user", "assistant", "system")
}


def write_rewards(path: Path, rewards: Rewards, user_ids: Sequence[str]) -> None:
    """Write ``round, user_id, split, completion, reward`` of one round as Parquet.

    Args:
        user_ids: the source's id of every user of the dataset, by user number.
    """
    rows = [
        (rewards.round, user_ids[user], str(Group.REWARD), completion, reward)
        for user, rewards_N in zip(rewards.user_U.tolist(), rewards.rewards_UN.tolist(), strict=True)
        for completion, reward in enumerate(rewards_N)
    ]
    pl.DataFrame(rows, REWARD_COLUMNS, schema_overrides={"reward": pl.Float32}, orient="row").write_parquet(path)


def write_pairs(path: Path, pairs: Sequence[Pair], user_ids: Sequence[str]) -> None:
    """Write the fields of the pairs as Parquet, with the user's id in the source in place of the user number."""
    rows = [{**asdict(pair), "user": user_ids[pair.user]} for pair in pairs]
    pl.DataFrame(rows, PAIR_COLUMNS).rename({"user": "user_id"}).write_parquet(path)


def write_pairs_jsonl(path: Path, pairs: Sequence[Pair], prompts: Mapping[int, Prompt]) -> None:
    """Write the pairs as conversations, one JSON object a line, for TRL and LLaMA-Factory; whole or not at all.

    TRL reads ``prompt``, ``chosen`` and ``rejected`` (lists of messages). LLaMA-Factory reads ``prompt``,
    ``chosen_message`` and ``rejected_message``, as the ``dataset_info.json`` written beside tells it.

    Args:
        prompts: by user number.

    Raises:
        DataError: a pair's user has no prompt.
    """
    lines: list[str] = []
    for pair in pairs:
        if pair.user not in prompts:
            raise DataError(f"every pair needs its prompt, got none for user {pair.user}; pass all prompts")
        chosen, rejected = ({"role": "assistant", "content": text} for text in (pair.chosen, pair.rejected))
        row = {"prompt": messages_of_prompt(prompts[pair.user]), "chosen": [chosen], "rejected": [rejected]}
        row |= {"chosen_message": chosen, "rejected_message": rejected}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    info = {"file_name": path.name, "formatting": "sharegpt", "ranking": True}
    info |= {"columns": LLAMA_FACTORY_COLUMNS, "tags": LLAMA_FACTORY_TAGS}
    atomic_write_text(path, "".join(lines))
    atomic_write_json(path.parent / "dataset_info.json", {path.stem: info})
