"""DPO: the loss by hand, learning on both sides, resuming bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from recloop.errors import RunError, SettingError, TrainingError
from recloop.llm.chat import own_tokenizer
from recloop.progress import SILENT, Progress
from recloop.rewards.preference_pairs import random_label_pairs
from recloop.testing import FakeLM
from recloop.training.dpo import DpoConfig
from recloop.training.result import TrainingRun, read_trained
from tiny_lm import build_tiny_lm
from training_cases import DISLIKED, LIKED, make_pairs, make_prompts, train_dpo

pytestmark = pytest.mark.slow  # TRL takes ten seconds to import

CONFIG = DpoConfig(learning_rate=2e-3, batch_size=2, gradient_accumulation_steps=2, save_steps=2, beta=0.3)


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return build_tiny_lm(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def other_lm(tmp_path_factory):
    return build_tiny_lm(tmp_path_factory.mktemp("other"), seed=1)


def mean_logps(folder, prompts, *replies):
    """Per reply, its log-probability with the end token, mean over prompts, by the plain forward pass."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = own_tokenizer(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def logp(prompt, reply):
        text = f"<|system|>{prompt.system}<|user|>{prompt.text}<|assistant|>"
        prompt_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        reply_ids = tokenizer(f"{reply}<|end|>", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([prompt_ids + reply_ids])).logits[0, len(prompt_ids) - 1 : -1]
        return float(logits.log_softmax(dim=1)[range(len(reply_ids)), reply_ids].sum())

    return [np.mean([logp(prompt, reply) for prompt in prompts]) for reply in replies]


def preference(folder, prompts):
    """How much likelier the liked reply is than the disliked one, in nats."""
    liked, disliked = mean_logps(folder, prompts, LIKED, DISLIKED)
    return liked - disliked


def weights_of(folder):
    return (folder / "model.safetensors").read_bytes()


def interrupt():
    raise KeyboardInterrupt


class StopAt(Progress):
    """Ends the training after some rows, as Ctrl-C would."""

    def __init__(self, num_rows, stop=interrupt):
        super().__init__(None)
        self._num_rows, self._stop = num_rows, stop

    @contextmanager
    def stage(self, name, total=None, unit="steps"):
        done = 0

        def step(amount):
            nonlocal done
            done += amount
            if done >= self._num_rows:
                self._stop()

        yield step


def test_the_first_step_has_the_loss_of_the_formula(lm, other_lm, tmp_path):
    # One pair: loss = -log sigmoid(beta ((chosen - reference chosen) - (rejected - reference rejected))), of log-
    # probabilities.
    prompts = make_prompts(1)
    chosen, rejected = mean_logps(lm, prompts.values(), LIKED, DISLIKED)
    anchor_chosen, anchor_rejected = mean_logps(other_lm, prompts.values(), LIKED, DISLIKED)
    margin = CONFIG.beta * ((chosen - anchor_chosen) - (rejected - anchor_rejected))
    row = train_dpo(lm, other_lm, prompts, make_pairs(1), CONFIG, tmp_path / "out", seed=0).log[0]
    assert abs(margin) > 0.1
    assert row["loss"] == pytest.approx(-np.log(1 / (1 + np.exp(-margin))), rel=1e-4)
    assert row["chosen_logp"] == pytest.approx(chosen, rel=1e-4)
    assert row["rejected_logp"] == pytest.approx(rejected, rel=1e-4)
    assert row["reward_margin"] == pytest.approx(margin, abs=1e-4)
    assert row["chosen_margin"] == pytest.approx(CONFIG.beta * (chosen - anchor_chosen), abs=1e-4)
    assert (row["step"], row["lr"]) == (1, CONFIG.learning_rate)


def test_the_likelihood_of_what_was_chosen_stands_beside_the_loss(lm, other_lm, tmp_path):
    # The loss of the formula above, less half of the mean log-probability of the chosen reply's tokens.
    from transformers import AutoTokenizer

    prompts, pairs = make_prompts(1), make_pairs(1)
    tokens = AutoTokenizer.from_pretrained(lm)(f"{LIKED}<|end|>", add_special_tokens=False)["input_ids"]
    weighted = CONFIG.model_copy(update={"sft_weight": 0.5})
    plain = train_dpo(lm, other_lm, prompts, pairs, CONFIG, tmp_path / "plain", seed=0).log[0]
    row = train_dpo(lm, other_lm, prompts, pairs, weighted, tmp_path / "weighted", seed=0).log[0]
    assert row["loss"] == pytest.approx(plain["loss"] - 0.5 * plain["chosen_logp"] / len(tokens), rel=1e-4)


def test_with_its_likelihood_what_was_chosen_does_not_sink_with_what_was_not(lm, tmp_path):
    # The replies differ in their last word: pushing one down pulls at the words before it, in both.
    prompts, pairs = make_prompts(24), make_pairs(24)
    asked = [prompts[user] for user in (0, 7, 23)]
    (before,) = mean_logps(lm, asked, LIKED)
    chosen = {}
    for weight in (0.0, 3.0):
        config = CONFIG.model_copy(update={"sft_weight": weight})
        trained = train_dpo(lm, lm, prompts, pairs, config, tmp_path / f"{weight:g}", seed=0)
        assert preference(trained.folder, asked) > preference(lm, asked) + 3.0
        (chosen[weight],) = mean_logps(trained.folder, asked, LIKED)
    assert chosen[3.0] > before + 10.0  # nats
    assert chosen[3.0] > chosen[0.0] + 10.0


def test_it_learns_what_is_preferred_and_nothing_from_random_labels(lm, tmp_path):
    # 24 users always prefer LIKED; the control gets the same pairs with labels by coin, here 12 of each.
    prompts, pairs = make_prompts(24), make_pairs(24)
    coin = random_label_pairs(pairs, seed=2)
    assert sum(pair.chosen == LIKED for pair in coin) == 12
    trained = train_dpo(lm, lm, prompts, pairs, CONFIG, tmp_path / "trained", seed=0)
    control = train_dpo(lm, lm, prompts, coin, CONFIG, tmp_path / "control", seed=0)
    asked = [prompts[user] for user in (0, 7, 23)]
    before = preference(lm, asked)
    rises, drifts = (preference(one.folder, asked) - before for one in (trained, control))
    assert rises > 3.0  # nats
    assert abs(drifts) < rises / 4
    assert trained.log[-1]["reward_margin"] > trained.log[0]["reward_margin"] + 0.5
    assert [row["step"] for row in trained.log] == list(range(1, 7))


def test_stopped_and_called_again_it_gives_the_same_weights_and_log(lm, other_lm, tmp_path):
    arguments = (lm, other_lm, make_prompts(13), make_pairs(13), CONFIG.model_copy(update={"epochs": 2}))
    whole = train_dpo(*arguments, tmp_path / "whole", 3)
    for num_rows in (1, 18):
        with pytest.raises(KeyboardInterrupt):
            train_dpo(*arguments, tmp_path / "again", 3, StopAt(num_rows))
        assert not (tmp_path / "again").exists()
    half = next((tmp_path / ".again.scratch").glob("checkpoint-4"))
    (half / "complete").unlink()  # as if killed while this checkpoint was written
    again = train_dpo(*arguments, tmp_path / "again", 3)
    assert weights_of(again.folder) == weights_of(whole.folder)
    assert again.log == whole.log
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "whole"]
    assert read_trained(again.folder).log == whole.log
    assert train_dpo(*arguments, tmp_path / "again", 3).log == whole.log  # done: returned at once
    with pytest.raises(RunError, match=r"trained from other inputs \(differing: seed\)"):
        train_dpo(*arguments, tmp_path / "again", 4)


def test_checkpoints_of_another_run_are_refused(lm, tmp_path):
    arguments = (lm, lm, make_prompts(8), make_pairs(8), CONFIG, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        train_dpo(*arguments, 0, StopAt(8), tmp_path / "scratch")
    with pytest.raises(RunError, match="holds checkpoints of another training run"):
        train_dpo(*arguments, 1, SILENT, tmp_path / "scratch")


def test_a_trained_scratch_is_not_trained_again(lm, tmp_path):
    # Killed after the last step, before the result was in place: the caller's scratch holds everything.
    arguments = (lm, lm, make_prompts(8), make_pairs(8), CONFIG)
    first = train_dpo(*arguments, tmp_path / "first", 0, SILENT, tmp_path / "scratch")
    second = train_dpo(*arguments, tmp_path / "second", 0, SILENT, tmp_path / "scratch")
    assert weights_of(first.folder) == weights_of(second.folder)
    assert first.log == second.log


def test_it_is_quiet_and_leaves_the_random_state_alone(lm, tmp_path, capfd):
    import torch

    states = random.getstate(), torch.random.get_rng_state()
    train_dpo(lm, lm, make_prompts(2), make_pairs(2), CONFIG, tmp_path / "out", 0)
    assert capfd.readouterr() == ("", "")
    assert random.getstate() == states[0]
    assert torch.equal(torch.random.get_rng_state(), states[1])


def test_a_diverging_loss_stops_the_run(lm, tmp_path):
    config = CONFIG.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match="the loss must stay finite, got nan"):
        train_dpo(lm, lm, make_prompts(12), make_pairs(12), config, tmp_path / "out", 0)


def test_trl_reads_the_rows_that_were_checked(lm, tmp_path):
    from transformers import AutoTokenizer

    from recloop.training import dpo
    from recloop.training.dataset import select_rows, training_order
    from recloop.training.trainer import TrainingJob, load_policy, quiet

    rows = select_rows(lm, make_prompts(7), make_pairs(7), CONFIG, seed=0).rows
    job = TrainingJob("test", TrainingRun(lm, tmp_path / "out", 0), {}, CONFIG, (len(rows), 0, 0))
    with quiet(0):
        trainer = dpo._make_trainer(job, rows, CONFIG, load_policy(lm, CONFIG))
    end_id = AutoTokenizer.from_pretrained(lm).eos_token_id
    order = training_order([row.num_tokens for row in rows], CONFIG, 0)
    assert len(trainer.train_dataset) == len(order)
    for index, found in zip(order, trainer.train_dataset, strict=True):
        longest = max(len(found["chosen_ids"]), len(found["rejected_ids"]))
        assert len(found["prompt_ids"]) + longest == rows[index].num_tokens
        assert found["chosen_ids"][-1] == found["rejected_ids"][-1] == end_id


def test_an_adapter_is_trained_on_from_round_to_round_with_the_same_anchor(lm, tmp_path):
    prompts, pairs = make_prompts(8), make_pairs(8)
    config = CONFIG.model_copy(update={"lora": True, "lora_rank": 4})
    first = train_dpo(lm, lm, prompts, pairs, config, tmp_path / "first", 0)
    second = train_dpo(first.folder, lm, prompts, pairs, config, tmp_path / "second", 0)
    assert (second.folder / "adapter_model.safetensors").is_file()
    assert first.log[0]["reward_margin"] == pytest.approx(0, abs=1e-5)
    assert second.log[0]["reward_margin"] > first.log[-1]["reward_margin"]
    gaps = [preference(folder, [prompts[0]]) for folder in (lm, first.folder, second.folder)]
    assert gaps[0] < gaps[1] < gaps[2]
    with pytest.raises(SettingError, match="holds a LoRA adapter"):
        train_dpo(first.folder, lm, prompts, pairs, CONFIG, tmp_path / "third", 0)


@pytest.fixture(scope="module")
def foreign(lm, tmp_path_factory):
    """An adapter with settings that ours never have."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from recloop.training.trainer import quiet

    settings = LoraConfig(
        r=4,
        lora_alpha=4,
        use_rslora=True,
        target_modules=["q_proj", "v_proj"],
        init_lora_weights=False,
    )
    folder = tmp_path_factory.mktemp("foreign")
    with quiet(0):
        get_peft_model(AutoModelForCausalLM.from_pretrained(lm), settings).save_pretrained(folder)
    return folder  # without a tokenizer, as peft leaves it


def test_an_adapter_made_elsewhere_is_trained_on_as_it_is(lm, foreign, tmp_path):
    # Steps of next to nothing: the trained adapter computes what the first one does.
    config = CONFIG.model_copy(update={"lora": True, "lora_rank": 4, "learning_rate": 1e-12})
    prompts = make_prompts(4)
    trained = train_dpo(foreign, lm, prompts, make_pairs(4), config, tmp_path / "out", 0)
    before, after = (json.loads((f / "adapter_config.json").read_text()) for f in (foreign, trained.folder))
    for name in ("r", "lora_alpha", "use_rslora"):
        assert after[name] == before[name]
    assert set(after["target_modules"]) == set(before["target_modules"])
    base, first, last = (preference(f, list(prompts.values())) for f in (lm, foreign, trained.folder))
    assert last == pytest.approx(first, abs=1e-4)
    assert abs(first - base) > 0.01
    assert trained.log[0]["reward_margin"] == pytest.approx(config.beta * (first - base), rel=1e-3)


def test_an_adapter_of_another_rank_is_refused(lm, foreign, tmp_path):
    config = CONFIG.model_copy(update={"lora": True, "lora_rank": 16})
    with pytest.raises(SettingError, match="adapter of rank 4, got lora_rank=16; use lora_rank=4"):
        train_dpo(foreign, lm, make_prompts(4), make_pairs(4), config, tmp_path / "out", 0)


def test_an_adapter_of_another_kind_is_refused(lm, tmp_path):
    from recloop.training.trainer import load_policy

    settings = {"peft_type": "IA3", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(lm)}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(SettingError, match="must be LoRA, got IA3"):
        load_policy(tmp_path, CONFIG.model_copy(update={"lora": True}))


def test_an_adapter_without_a_weight_of_its_own_or_with_a_strange_one_is_refused(lm, foreign, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(foreign, tmp_path / "damaged")
    weights = load_file(folder / "adapter_model.safetensors")
    lost = next(name for name in weights if "layers.1.self_attn.q_proj.lora_B" in name)
    weights[lost.replace("q_proj", "o_proj")] = weights.pop(lost)
    save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})
    config = CONFIG.model_copy(update={"lora": True, "lora_rank": 4})
    with pytest.raises(RunError, match=r"1 missing \[.*q_proj.lora_B.*1 unexpected \[.*o_proj.lora_B"):
        train_dpo(folder, lm, make_prompts(4), make_pairs(4), config, tmp_path / "out", 0)


KILLED = """
import os, signal, sys
from pathlib import Path
from test_training_dpo import CONFIG, StopAt
from training_cases import make_pairs, make_prompts, train_dpo

lm, out, num_rows = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
kill = StopAt(num_rows, lambda: os.kill(os.getpid(), signal.SIGKILL))
train_dpo(lm, lm, make_prompts(12), make_pairs(12), CONFIG, out, 0, kill)
"""


@pytest.mark.soak
def test_killed_and_called_again_it_gives_the_same_weights(lm, tmp_path):
    tests = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{tests.parent / 'src'}:{tests}"}
    out = tmp_path / "again"
    for num_rows in (4, 10):
        command = [sys.executable, "-c", KILLED, str(lm), str(out), str(num_rows)]
        assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    arguments = (lm, lm, make_prompts(12), make_pairs(12), CONFIG)
    again, whole = (train_dpo(*arguments, folder, 0) for folder in (out, tmp_path / "whole"))
    assert weights_of(again.folder) == weights_of(whole.folder)
    assert again.log == whole.log


def test_over_a_base_in_four_bits_an_adapter_learns_what_is_preferred(tmp_path):
    # QLoRA: what is written is an adapter of the base as it is, and it is read again with either.
    from recloop.llm.local import TransformersLM

    lm = build_tiny_lm(tmp_path / "lm", width=64)  # 4 bits come in blocks of 64 weights
    prompts, pairs = make_prompts(24), make_pairs(24)
    config = CONFIG.model_copy(update={"load_in_4bit": True, "learning_rate": 1e-2})
    trained = train_dpo(lm, lm, prompts, pairs, config, tmp_path / "trained", seed=0)
    assert trained.log[-1]["reward_margin"] > trained.log[0]["reward_margin"] + 0.5
    asked = [prompts[user] for user in (0, 7, 23)]

    def liking(folder, in_4bit):
        model = TransformersLM(folder, device="cpu", load_in_4bit=in_4bit)
        liked, disliked = (
            sum(logp for logp, _ in model.reply_logps(asked, [reply] * 3)) for reply in (LIKED, DISLIKED)
        )
        return liked - disliked

    for in_4bit in (True, False):
        assert liking(trained.folder, in_4bit) > liking(lm, in_4bit) + 3.0
    again = config.model_copy(update={"learning_rate": 1e-3})
    assert (
        train_dpo(trained.folder, lm, prompts, pairs, again, tmp_path / "second", seed=0).log[0]["reward_margin"] > 0.5
    )


def test_four_bits_without_an_adapter_are_refused(lm, tmp_path):
    config = CONFIG.model_copy(update={"load_in_4bit": True, "lora": False})
    with pytest.raises(SettingError, match="trains an adapter only, got lora=False"):
        train_dpo(lm, lm, make_prompts(2), make_pairs(2), config, tmp_path / "out", seed=0)


def test_the_public_functions_go_from_texts_to_a_trained_model(lm, tmp_path):
    import recloop as rl
    from recloop.rewards.function import from_trl

    opened = rl.load_lm(f"transformers:{lm}", device="cpu")
    prompts = list(make_prompts(6).values())
    texts = rl.generate(opened, prompts, n=4, max_tokens=12)
    reward = from_trl(lambda completions, **_: [float("e" in one[0]["content"]) for one in completions])
    pairs = rl.preference_pairs(texts, reward)
    assert pairs.pairs
    settings = {"batch_size": 2, "max_prompt_tokens": 200, "seed": 1}
    trained = rl.train_dpo(opened, pairs, out=tmp_path / "dpo", beta=0.3, **settings)
    assert trained.num_rows == len(pairs.pairs)
    again = rl.train_dpo(trained, pairs, out=tmp_path / "second", reference=opened, **settings)
    assert again.log[0]["reward_margin"] != 0 == trained.log[0]["reward_margin"]
    rl.train_sft(str(lm), pairs, out=tmp_path / "sft", **settings)
    assert rl.load_lm(f"transformers:{again.folder}", device="cpu").name != opened.name
    with pytest.raises(SettingError, match="did you mean beta"):
        rl.train_dpo(opened, pairs, out=tmp_path / "third", betta=0.3)
    with pytest.raises(SettingError, match=r"got fake-lm-.* without one"):
        rl.train_dpo(FakeLM(), pairs, out=tmp_path / "third")
