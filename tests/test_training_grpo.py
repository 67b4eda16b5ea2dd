"""GRPO with token-level advantages, on a language model of 30,000 random parameters."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recloop.errors import RunError, SettingError
from recloop.files import sha256_of_file
from recloop.records import Prompt
from recloop.rewards.advantages import AdvantageConfig, Penalty
from recloop.training.grpo import run_grpo
from recloop.training.grpo_config import AnswerReward, EpochShare, GrpoConfig, ScoredAnswer
from recloop.training.result import TrainingRun
from tiny_lm import build_tiny_lm

pytestmark = pytest.mark.slow

CONFIG = GrpoConfig(
    learning_rate=1e-2,
    batch_size=1,
    gradient_accumulation_steps=2,
    num_generations=4,
    max_reply_tokens=8,
    max_pairs=8,
    save_steps=1,
    beta=0.05,
    warmup_steps=0,
)
PROMPTS = [Prompt(number, "Answer.", f"Say something about {number}.", 0, 0) for number in (5, 3, 9, 4)]
PLAIN = AdvantageConfig(penalty=Penalty.NONE, std_floor=1e-4)  # TRL's own GRPO


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return build_tiny_lm(tmp_path_factory.mktemp("lm") / "lm")


def score(number, text, is_finished):
    """The share of vowels; the first half of the text is called wrong where there is no 'e'."""
    reward = sum(c in "aeiou" for c in text) / (len(text) + 1)
    wrong = () if "e" in text else ((0, len(text) // 2),)
    return ScoredAnswer(reward, reward / 2, wrong, {"finished": float(is_finished), "length": float(len(text))})


def train(
    lm,
    folder,
    scorer=score,
    config=CONFIG,
    advantages=PLAIN,
    prompts=PROMPTS,
    passed=(0.0, 1.0),
    moments=None,
):
    folder.mkdir(exist_ok=True)
    run = TrainingRun(lm, folder / "out", 7, scratch=folder / "scratch")
    return run_grpo(run, prompts, AnswerReward(scorer, "test", advantages), config, EpochShare(*passed, moments))


def test_with_constant_advantages_a_step_is_that_of_trl(lm, tmp_path, monkeypatch):
    """Every answer has 8 tokens (the end token is forbidden), so TRL's advantage is ours at each token.

    Both sample by TRL; theirs reads a prompt once for every answer.
    """
    import torch
    from safetensors.torch import load_file
    from trl.trainer.grpo_trainer import GRPOTrainer

    from recloop.training import grpo_trainer

    made = grpo_trainer.make_trainer

    def make(*arguments):
        trainer = made(*arguments)
        trainer.generation_config.suppress_tokens = [trainer.processing_class.eos_token_id]
        return trainer

    monkeypatch.setattr(grpo_trainer, "make_trainer", make)
    trainer_class = grpo_trainer.TokenGrpoTrainer
    monkeypatch.setattr(trainer_class, "_generate_single_turn", GRPOTrainer._generate_single_turn)
    ours = train(lm, tmp_path / "ours")
    ours_weights = load_file(ours.trained.folder / "model.safetensors")
    grpo = GRPOTrainer._generate_and_score_completions

    def trls(self, inputs):
        self._metrics["train"]["side_share"].append(0.0)
        self._metrics["train"]["penalised_tokens"].append(0.0)
        return grpo(self, inputs)

    monkeypatch.setattr(trainer_class, "_generate_and_score_completions", trls)
    monkeypatch.setattr(grpo_trainer, "share_prompts", lambda *_: None)
    theirs = train(lm, tmp_path / "theirs")
    assert [row["reward"] for row in ours.answers] == [row["reward"] for row in theirs.answers]
    before = load_file(lm / "model.safetensors")
    for name, weights in load_file(theirs.trained.folder / "model.safetensors").items():
        # A step is of 1e-2; Adam divides by a gradient's size, so rounding shows where that is nearly 0.
        assert (weights - ours_weights[name]).abs().max() <= 1e-4
    assert any(not torch.equal(before[name], ours_weights[name]) for name in before)
    for mine, other in zip(ours.trained.log, theirs.trained.log, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert mine["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_answers_that_move_nothing_are_not_read_again(lm, tmp_path, monkeypatch, beta):
    """Requests 5 and 9 have the same reward in all answers: left out where there is no divergence."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    from recloop.training.grpo_trainer import TokenGrpoTrainer

    def partly_tied(number, text, is_finished):
        return replace(score(number, text, is_finished), **({"reward": 0.5} if number in (5, 9) else {}))

    real, sizes = GRPOTrainer._compute_loss, []

    def counting(self, model, inputs):
        sizes.append(len(inputs["completion_ids"]))
        return real(self, model, inputs)

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", counting)
    config = CONFIG.model_copy(update={"beta": beta, "batch_size": 2, "gradient_accumulation_steps": 1})
    found = train(lm, tmp_path / "left_out", partly_tied, config).trained
    assert sizes == ([4, 4] if beta == 0 else [8, 8])
    monkeypatch.setattr(TokenGrpoTrainer, "_compute_loss", real)
    whole = train(lm, tmp_path / "whole", partly_tied, config).trained
    for one, other in zip(found.log, whole.log, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-6)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


def test_the_learning_rate_falls_to_0_over_all_epochs(lm, tmp_path):
    """Two steps an epoch: a quarter of the way each."""
    config = CONFIG.model_copy(update={"epochs": 2, "learning_rate": 0.4})
    rates = [
        row["lr"]
        for epoch, passed in enumerate(((0.0, 0.5), (0.5, 1.0)))
        for row in train(lm, tmp_path / str(epoch), config=config, passed=passed).trained.log
    ]
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_the_learning_rate_rises_at_the_beginning_of_an_epoch(lm, tmp_path):
    config = CONFIG.model_copy(update={"learning_rate": 0.4, "warmup_steps": 1})
    rates = [row["lr"] for row in train(lm, tmp_path, config=config, passed=(0.5, 0.75)).trained.log]
    assert rates == pytest.approx([0.1, 0.2])  # half of 0.4 once risen, and half of that on the way


def test_two_epochs_with_moments_carried_over_are_one(lm, tmp_path, monkeypatch):
    """The same random numbers in four steps of one run and in two runs of two steps each."""
    import torch
    from safetensors.torch import load_file

    generator = torch.Generator()

    def rand(size, dtype):
        return torch.randint(1000, size, generator=generator).to(dtype) / 1000

    def half(name, of, asked, passed, moments=None, warmup=0):
        changed = config.model_copy(update={"warmup_steps": warmup})
        return train(of, tmp_path / name, config=changed, prompts=asked, passed=passed, moments=moments)

    def weights(run):
        return torch.cat([w.ravel() for w in load_file(run.trained.folder / "model.safetensors").values()])

    config = CONFIG.model_copy(update={"gradient_accumulation_steps": 1, "beta": 0.0})
    monkeypatch.setattr(torch, "rand", rand)
    generator.manual_seed(1)
    whole = half("whole", lm, PROMPTS, (0.0, 1.0))
    generator.manual_seed(1)
    first = half("first", lm, PROMPTS[:2], (0.0, 0.5))
    state = generator.get_state()
    carried = half("carried", first.trained.folder, PROMPTS[2:], (0.5, 1.0), first.moments, warmup=2)
    generator.set_state(state)
    warmed_up_again = half("again", first.trained.folder, PROMPTS[2:], (0.5, 1.0))
    assert [row["lr"] for row in carried.trained.log] == [row["lr"] for row in whole.trained.log[2:]]
    assert (*first.answers, *carried.answers) == whole.answers
    assert torch.allclose(weights(carried), weights(whole), atol=1e-6)
    assert not torch.allclose(weights(warmed_up_again), weights(whole), atol=1e-4)


def test_answers_are_those_of_trl_where_chance_has_no_part(lm, tmp_path, monkeypatch):
    from trl.trainer.grpo_trainer import GRPOTrainer

    from recloop.training import grpo_trainer

    texts = []

    def listening(number, text, is_finished):
        texts.append((number, text, is_finished))
        return score(number, text, is_finished)

    config = CONFIG.model_copy(update={"temperature": 1e-4})
    train(lm, tmp_path / "ours", listening, config, prompts=PROMPTS[:2])
    ours = list(texts)
    texts.clear()
    monkeypatch.setattr(grpo_trainer.TokenGrpoTrainer, "_generate_single_turn", GRPOTrainer._generate_single_turn)
    train(lm, tmp_path / "theirs", listening, config, prompts=PROMPTS[:2])
    assert len(ours) == 8
    assert ours == texts


@pytest.mark.parametrize("shares_prompts", [True, False])
def test_an_answer_is_finished_by_any_of_the_models_end_tokens(lm, tmp_path, monkeypatch, shares_prompts):
    """Models of chats end a turn with a token of their own beside the tokenizer's; here with 100 of 340."""
    from transformers import GenerationConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from recloop.training import grpo_trainer

    folder = shutil.copytree(lm, tmp_path / "lm")
    GenerationConfig(eos_token_id=list(range(100, 200))).save_pretrained(folder)
    if not shares_prompts:
        monkeypatch.setattr(grpo_trainer.TokenGrpoTrainer, "_generate_single_turn", GRPOTrainer._generate_single_turn)
    run = train(folder, tmp_path)
    assert np.mean([row["finished"] for row in run.answers]) > 0.75  # 1 - (2/3)^8 is .96


@pytest.mark.parametrize("updates", [1, 2])
def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(lm, tmp_path, updates):
    """With two updates on the same answers a checkpoint after step 3 would be between them."""
    config = AdvantageConfig()
    twice = CONFIG.model_copy(update={"num_iterations": 2, "gradient_accumulation_steps": 1, "save_steps": 3})
    settings = CONFIG if updates == 1 else twice
    whole = train(lm, tmp_path / "whole", score, settings, config)
    calls = 0

    def killed(*arguments):
        nonlocal calls
        calls += 1
        if calls == 11:  # inside the second of two steps, 8 answers each
            raise KeyboardInterrupt
        return score(*arguments)

    with pytest.raises(KeyboardInterrupt):
        train(lm, tmp_path / "cut", killed, settings, config)
    assert not (tmp_path / "cut" / "out").exists()
    resumed = train(lm, tmp_path / "cut", score, settings, config)
    assert resumed.answers == whole.answers
    assert [dict(row) for row in resumed.trained.log] == [dict(row) for row in whole.trained.log]
    one, other = (sha256_of_file(run.trained.folder / "model.safetensors") for run in (resumed, whole))
    assert one == other
    assert sha256_of_file(resumed.moments) == sha256_of_file(whole.moments)
    assert train(lm, tmp_path / "cut", score, settings, config).answers == whole.answers  # found done
    with pytest.raises(RunError, match="trained from other inputs"):
        train(lm, tmp_path / "cut", score, settings, PLAIN)


def test_rewards_of_answers_are_kept_in_the_order_of_the_requests(lm, tmp_path):
    run = train(lm, tmp_path)
    assert [row["number"] for row in run.answers] == [n for n in (5, 3, 9, 4) for _ in range(4)]
    assert all(set(row) == {"number", "reward", "finished", "length"} for row in run.answers)
    assert run.trained.num_rows == 16
    assert [row["step"] for row in run.trained.log] == [1, 2]
    # side terms are half of every reward: without them advantages are the same up to the floor of the std
    assert all(row["side_share"] < 0.05 for row in run.trained.log)
    rewards = [row["reward"] for row in run.answers]
    assert run.trained.log[0]["reward"] == pytest.approx(np.mean(rewards[:8]), abs=1e-4)


def test_tokens_of_wrong_paragraphs_get_less(lm, tmp_path):
    import torch
    from transformers import AutoTokenizer

    from recloop.training import grpo_trainer

    tokenizer = AutoTokenizer.from_pretrained(lm)
    ids = torch.tensor([*tokenizer("Ann Vale, née Été", add_special_tokens=False).input_ids, tokenizer.eos_token_id])
    starts = grpo_trainer.token_starts(tokenizer, ids)
    assert starts[0] == 0
    assert starts[-1] == len("Ann Vale, née Été")
    assert (np.diff(starts) >= 0).all()
    run = train(lm, tmp_path, advantages=AdvantageConfig(penalty_weight=1.0))
    assert any(row["penalised_tokens"] > 0 for row in run.trained.log)


def test_what_cannot_be_trained_is_said_before_anything_is_loaded(lm, tmp_path):
    with pytest.raises(SettingError, match="an optimiser step takes 2 requests, got 1"):
        train(lm, tmp_path, prompts=PROMPTS[:1])
    with pytest.raises(SettingError, match="may have 4 tokens with its chat template"):
        train(lm, tmp_path, config=CONFIG.model_copy(update={"max_prompt_tokens": 4}))
    with pytest.raises(ValueError, match="max_pairs must hold"):
        GrpoConfig(max_pairs=4)
    assert not Path(tmp_path / "out").exists()
