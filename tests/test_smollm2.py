"""The whole loop with a language model that others made: it samples, is rewarded, trained, and samples again."""

import json
from pathlib import Path

import polars as pl
import pytest

from recloop.cli import main
from recloop.llm.smollm2 import fetched_folder

HAS_IT = fetched_folder() is not None
SETTINGS = {
    "data.simulated.num-users": "12",
    "data.simulated.num-items": "72",
    "data.simulated.num-interactions": "20",
    "split.train": "0.4",
    "split.reward": "0.35",
    "prompt.template": "short",
    "prompt.max-prompt-tokens": "300",
    "lm.max-tokens": "48",
    "completions.sentences": "1",  # a text that the limit cuts makes no pair
    "completions.reward": "3",
    "completions.test": "1",
    "reward.metric": "loglik",
    "pairs.mode": "all_pairs",
    "dpo.max-pairs": "8",
    "reranker.max-epochs": "2",
    "variants": "trained",
    "encoder": "static",
    "preflight": "warn",  # half of its texts do not end
}


@pytest.mark.soak
@pytest.mark.skipif(not HAS_IT, reason="SmolLM2-135M-Instruct is not there; make smollm2 gets it")
def test_a_published_model_goes_round_the_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for name, value in SETTINGS.items() for word in (f"--{name}", value)]
    run = tmp_path / "run"
    assert main(["run", "dpo4rec", "--lm", "smollm2:base", "--out", str(run), *words]) == 0
    assert "Trained - Untuned (KAR)" in capsys.readouterr().out
    pairs = pl.read_parquet(run / "pairs.parquet")
    assert 1 <= pairs.height <= 12  # four reward users, three pairs of three completions each
    assert (pairs["chosen_reward"] > pairs["rejected_reward"]).all()
    (trained,) = (run / "lm").glob("trained.*")
    assert json.loads((trained / "adapter_config.json").read_text())["peft_type"] == "LORA"
    texts = pl.read_parquet(run / "completions.parquet")
    assert texts["text"].n_unique() > 20
    assert (run / "report.html").stat().st_size > 10_000
