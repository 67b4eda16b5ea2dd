"""The files of rewards and pairs, each written atomically: ``rewards.parquet``, ``pairs.parquet``, ``pairs.jsonl``."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from recloop.errors import DataError
from recloop.files import atomic_write_bytes, atomic_write_json, atomic_write_text
from recloop.records import Group, Pair, Prompt, Rewards
from recloop.rewards.function import messages_of_prompt

if TYPE_CHECKING:
    import polars as pl

# LLaMA-Factory wants one message where TRL wants a list of messages; both find theirs in every row.
LLAMA_FACTORY_COLUMNS = {"messages": "prompt", "chosen": "chosen_message", "rejected": "rejected_message"}
LLAMA_FACTORY_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}


def write_rewards(path: Path, rewards: Sequence[Rewards], user_ids: Sequence[str]) -> None:
    """Write ``round, user_id, split, completion, reward`` of some rounds as one Parquet file.

    Args:
        path: the file; its folder exists.
        rewards: one record per round, at least one.
        user_ids: the source's id of every user of the dataset, by user number.
    """
    import polars as pl

    _write_parquet(path, pl.concat([_rewards_table(of_round, user_ids) for of_round in rewards]))


def write_pairs(path: Path, pairs: Sequence[Pair], user_ids: Sequence[str]) -> None:
    """Write the pairs as Parquet, with the user's id in the source in place of the user number.

    Columns: ``round, user_id``, then completion number, text and reward of the chosen and the rejected completion, and
    whether the rejected one came to its end before the token limit.
    """
    import polars as pl

    schema = {"user": pl.String} | dict.fromkeys(("round", "chosen_completion", "rejected_completion"), pl.Int64)
    schema |= dict.fromkeys(("chosen", "rejected"), pl.String)
    schema |= dict.fromkeys(("chosen_reward", "rejected_reward"), pl.Float32)
    names = [field.name for field in fields(Pair)]
    rows = [{**asdict(pair), "user": user_ids[pair.user]} for pair in pairs]
    table = pl.DataFrame(rows, schema={name: schema.get(name, pl.Boolean) for name in names})
    _write_parquet(path, table.rename({"user": "user_id"}))


def write_pairs_jsonl(path: Path, pairs: Sequence[Pair], prompts: Mapping[int, Prompt]) -> None:
    """Write the pairs as conversations, one JSON object a line, for TRL and LLaMA-Factory.

    TRL reads ``prompt``, ``chosen`` and ``rejected`` (lists of messages). LLaMA-Factory reads ``prompt``,
    ``chosen_message`` and ``rejected_message``, as the ``dataset_info.json`` written beside tells it.

    Args:
        path: the file; its folder exists.
        pairs: in the order of the file.
        prompts: by user number.

    Raises:
        DataError: a pair's user has no prompt.
    """
    lines: list[str] = []
    for pair in pairs:
        if pair.user not in prompts:
            raise DataError(f"every pair needs its prompt, got none for user {pair.user}; pass all prompts")
        prompt = prompts[pair.user]
        chosen = {"role": "assistant", "content": pair.chosen}
        rejected = {"role": "assistant", "content": pair.rejected}
        row = {
            "prompt": messages_of_prompt(prompt),
            "chosen": [chosen],
            "rejected": [rejected],
            "chosen_message": chosen,
            "rejected_message": rejected,
        }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    info = {
        "file_name": path.name,
        "formatting": "sharegpt",
        "ranking": True,
        "columns": LLAMA_FACTORY_COLUMNS,
        "tags": LLAMA_FACTORY_TAGS,
    }
    atomic_write_text(path, "".join(lines))
    atomic_write_json(path.parent / "dataset_info.json", {path.stem: info})


def _rewards_table(rewards: Rewards, user_ids: Sequence[str]) -> pl.DataFrame:
    import polars as pl

    num_users, num_completions = rewards.rewards_UN.shape
    ids_U = [user_ids[user] for user in rewards.user_U]
    return pl.DataFrame(
        {
            "round": pl.Series([rewards.round] * (num_users * num_completions), dtype=pl.Int64),
            "user_id": pl.Series([user_id for user_id in ids_U for _ in range(num_completions)], dtype=pl.String),
            "split": pl.Series([str(Group.REWARD)] * (num_users * num_completions), dtype=pl.String),
            "completion": list(range(num_completions)) * num_users,
            "reward": pl.Series(rewards.rewards_UN.ravel(), dtype=pl.Float32),
        }
    )


def _write_parquet(path: Path, table: pl.DataFrame) -> None:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    atomic_write_bytes(path, buffer.getvalue())
