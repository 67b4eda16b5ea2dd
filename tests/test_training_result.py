"""The record of a training run: what makes two runs the same, and what a folder must say to be one."""

import pytest

from recloop.errors import RunError
from recloop.training.dpo import DpoConfig
from recloop.training.result import (
    TRAINING_FILE,
    TrainedModel,
    TrainingBudget,
    digest_inputs,
    read_trained,
    training_text,
)
from training_cases import make_pairs, make_prompts


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm" / "model.safetensors").write_bytes(b"weights")
    return tmp_path / "lm"


def test_anything_that_matters_changes_the_digest_and_nothing_else_does(folder):
    prompts, pairs, config = make_prompts(3), make_pairs(3), DpoConfig()
    base = digest_inputs({"lm": folder}, prompts, pairs, config, 0)
    assert digest_inputs({"lm": folder}, make_prompts(9), pairs, config, 0) == base  # prompts without a pair
    changed = [
        digest_inputs({"lm": folder}, prompts, pairs[::-1], config, 0),
        digest_inputs({"lm": folder}, {**prompts, 1: make_prompts(5)[4]}, pairs, config, 0),
        digest_inputs({"lm": folder}, prompts, pairs, DpoConfig(beta=0.2), 0),
        digest_inputs({"lm": folder}, prompts, pairs, config, 1),
    ]
    (folder / "model.safetensors").write_bytes(b"other weights")
    changed.append(digest_inputs({"lm": folder}, prompts, pairs, config, 0))
    assert all(one != base for one in changed)
    assert len({str(one) for one in changed}) == 5


def test_a_record_comes_back_as_it_was_written(folder):
    inputs = {"seed": 1, "rows": "abc"}
    trained = TrainedModel(folder, ({"step": 1.0, "loss": 0.1 + 0.2},), 5, 2, 1)
    (folder / TRAINING_FILE).write_text(training_text(trained, inputs))
    assert read_trained(folder) == read_trained(folder, inputs) == trained
    with pytest.raises(RunError, match=r"trained from other inputs \(differing: rows, seed\)"):
        read_trained(folder, {"seed": 2, "rows": "abd"})


def test_another_folder_is_refused(folder):
    with pytest.raises(RunError, match=r"holds training\.json, got none"):
        read_trained(folder)


def test_more_rows_make_surer_steps_and_not_more_of_them():
    """Batches of 4: 99 rows are 25 passes, one a step; 1,476 rows are 369 passes, 15 a step."""
    budget = TrainingBudget()
    assert (budget.batch_size, budget.passes_per_step(3), budget.passes_per_step(99)) == (4, 1, 1)
    assert budget.passes_per_step(1476) == 15
    assert TrainingBudget(gradient_accumulation_steps=8).passes_per_step(3) == 8
