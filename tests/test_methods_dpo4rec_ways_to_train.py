"""User texts trained by SFT and by GRPO, on the rewards of DPO or on others, on a very small simulated log."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import recloop as rl
from recloop.errors import SettingError
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.reinforce import scorer
from recloop.progress import SILENT
from recloop.records import Prompt
from recloop.training.grpo_config import ScoredAnswer
from recloop.training.grpo_trainer import shuffled_rewards

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {
    "data": {"simulated": {"num_users": 60, "num_items": 60, "num_interactions": 12}},
    "prompt": {"max_prompt_tokens": 300},
    "completions": {"reward": 4, "test": 1},
    "reranker": {"max_epochs": 1},
    "statistics": {"num_flips": 200, "num_resamples": 100},
    "variants": "core",
    "dpo": {"max_pairs": 8},
    "grpo": {"num_generations": 4, "batch_size": 3, "save_steps": 2, "max_pairs": 12},
}


def run(out: Path, **changes: Any) -> None:
    rl.run("dpo4rec", out=out, preflight="off", progress=SILENT, **SMALL | changes)


def names_of(out: Path) -> set[str]:
    return {
        row["name"] for row in json.loads((out / "results.json").read_text())["tables"][0]["metrics"][0]["variants"]
    }


def brevity(prompts: Any, completions: Any, /, **_: Any) -> np.ndarray:
    return np.array([[-len(text.split()) / 20 for text in completions_N] for completions_N in completions])


@pytest.fixture(scope="module")
def reinforced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("grpo") / "run"
    grpo = SMALL["grpo"] | {"learning_rate": 1e-3, "beta": 0.0, "epochs": 2, "warmup_steps": 0}
    run(out, train="grpo", grpo=grpo, reward=brevity)
    return out


def test_texts_reinforced_for_brevity_get_shorter_and_those_of_dealt_out_rewards_do_not(reinforced: Path) -> None:
    completions = pl.read_parquet(reinforced / "completions.parquet").filter(pl.col("number") == 0)
    words = {
        name: completions.filter(pl.col("variant") == name)["text"].str.split(" ").list.len().mean()
        for name in ("untuned", "trained", "random_label_grpo")
    }
    assert words["trained"] < 0.8 * words["untuned"]
    assert words["random_label_grpo"] > 1.15 * words["trained"]


def test_a_reinforced_run_has_its_control_and_neither_pairs_nor_rewarded_completions(reinforced: Path) -> None:
    assert {"untuned", "trained", "random_label_grpo"} <= names_of(reinforced)
    assert not {"random_label_dpo", "sft_best_of_n"} & names_of(reinforced)
    steps = json.loads((reinforced / "manifest.json").read_text())["steps"]
    assert {"train.trained.s0", "train.random_label_grpo.s0"} <= set(steps)
    assert not [name for name in steps if name.startswith(("reward.", "pairs."))]
    page = (reinforced / "report.html").read_text()
    assert "reinforced by the rewards" in page
    assert "Random-label GRPO" in page
    assert "Preference pairs" not in page


def test_texts_that_imitate_the_best_have_a_control_of_their_own(tmp_path: Path) -> None:
    run(tmp_path / "run", train="sft")
    assert {"trained", "random_label_sft"} <= names_of(tmp_path / "run")
    assert "is fine-tuned on the best completion" in (tmp_path / "run" / "report.html").read_text()


def test_a_reward_by_embedding_less_penalties_makes_the_pairs(tmp_path: Path) -> None:
    penalised = {"by": "embedding", "untruth_weight": 0.5, "length_weight": 0.1}
    rewards: dict[str, pl.DataFrame] = {}
    for name, reward in (("plain", {"by": "embedding"}), ("penalised", penalised)):
        run(tmp_path / name, reward=reward, variants="trained", encoder={"name": "static"})
        rewards[name] = pl.read_parquet(tmp_path / name / "rewards.parquet")
        logged = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        means = [row["reward_mean"] for row in logged if "reward_mean" in row]
        assert means == [pytest.approx(rewards[name]["reward"].mean())]
    joined = rewards["plain"].join(rewards["penalised"], on=["user_id", "completion"], suffix="_penalised")
    lost = joined["reward"] - joined["reward_penalised"]
    assert lost.min() > 0.004
    assert lost.max() < 0.5 + 0.1
    assert "how much nearer the text is" in (tmp_path / "plain" / "report.html").read_text()


def test_cross_fitted_rewards_and_too_short_prompts_are_refused_for_grpo() -> None:
    with pytest.raises(ValueError, match="whole round"):
        Dpo4RecConfig.model_validate({"train": "grpo", "reward": {"cross_fit": True}})
    with pytest.raises(ValueError, match=r"grpo.max_prompt_tokens must hold every prompt, got 300"):
        Dpo4RecConfig.model_validate({"train": "grpo", "grpo": {"max_prompt_tokens": 300}})
    with pytest.raises(SettingError, match="train"):
        run(Path("nowhere"), train="ppo")


def test_completions_are_rewarded_as_they_are_read() -> None:
    seen: list[Any] = []

    def reward(prompts: Any, completions: Any, /, users: Any) -> np.ndarray:
        seen.append((prompts[0].user, completions, users))
        return np.array([[0.25]])

    score = scorer(reward, [Prompt(4, "", "", 0, 0), Prompt(2, "", "", 0, 0)], ["a", "b", "c", "d", "e"], 1)
    found = score(1, "<think>Hm.</think>Likes **drama**. Dislikes war.", True)
    assert found == ScoredAnswer(0.25, 0.25, (), {"words": 2.0})
    assert seen == [(2, [["Likes drama."]], ["c"])]


def test_rewards_are_dealt_out_among_the_answers_of_one_prompt() -> None:
    answers = [ScoredAnswer(float(n), float(n) + 100, ((n, n + 1),), {}) for n in range(8)]
    dealt = shuffled_rewards(answers, 4, np.random.default_rng(3))
    assert [sorted(one.reward for one in dealt[at : at + 4]) for at in (0, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [one.reward for one in dealt] != [one.reward for one in answers]
    assert all(one.bare_reward == one.reward + 100 for one in dealt)
    assert [one.wrong_spans for one in dealt] == [one.wrong_spans for one in answers]
