"""DPO steps on pairs of the bundled language model, against TRL's trainer with its own settings."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.bench import Bench
from benchmarks.speed.encoding_part import summaries
from benchmarks.speed.figures import Check, Figure, Findings
from benchmarks.speed.measuring import profile, race
from benchmarks.speed.sampling_part import simulated_prompts
from recloop.llm.bundled import bundled_lm_folder
from recloop.llm.chat import load_tokenizer, messages_of
from recloop.llm.local import TransformersLM
from recloop.records import Pair, Prompt
from recloop.training.dataset import reply_of, select_rows, training_order
from recloop.training.dpo import DpoConfig, run_dpo
from recloop.training.result import TrainingRun

NUM_PAIRS = 64
SEED = 0
# So small that every step has the first step's weights: steps are compared, not how rounding adds up over many.
LEARNING_RATE = 1e-9
ALLOWED = 1e-5
WANTED_RATIO = 1.5


@dataclass(frozen=True, slots=True)
class Models:
    """The folders of what is trained and of its reference."""

    lm: Path
    reference_lm: Path


BUNDLED = Models(bundled_lm_folder(), bundled_lm_folder("answers"))


def measure(bench: Bench) -> Findings:
    """Time whole calls, loading included, on the same pairs in the same order with the same rates and batches."""
    lm = TransformersLM(bundled_lm_folder(), device="cpu")
    prompts, pairs = make_pairs(lm, bench.amount(NUM_PAIRS, 8))
    config = DpoConfig(learning_rate=LEARNING_RATE)
    num_tokens = count_tokens(prompts, pairs, config, lm)
    folder = bench.scratch / "trained"
    some = pairs[:2]
    our_losses(prompts, some, config, folder)  # loads what is loaded once
    trl_losses(prompts, some, config, folder, checkpointing=None)
    figures: list[Figure] = []
    with bench.progress.stage("dpo", 2 * bench.repetitions, "repetitions") as step:
        for name, checkpointing in (
            ("TRL's DPOTrainer, its defaults", None),
            ("TRL's DPOTrainer, activations kept", False),
        ):
            found = race(
                ("run_dpo", num_tokens, lambda: our_losses(prompts, pairs, config, folder)),
                (name, num_tokens, lambda c=checkpointing: trl_losses(prompts, pairs, config, folder, c)),
                bench.repetitions,
                step,
            )
            gap = float(np.abs(np.divide(found.our_result, found.their_result) - 1).max())
            figures.append(
                Figure(
                    name="DPO",
                    unit="tokens",
                    ours=found.ours,
                    against=found.against,
                    checks=(Check(what="largest share by which a step's loss differs", value=gap, most=ALLOWED),),
                    notes=(f"{name}: {len(pairs)} pairs, prompts and replies counted once per pair and reply",),
                )
            )
    return Findings(
        figures=tuple(figure.with_ratio_target(WANTED_RATIO) for figure in figures),
        profiles=(profile("DPO", lambda: our_losses(prompts, pairs, config, folder)),),
        bound=(
            "A prompt has about 400 tokens and its two replies 40. TRL runs the prompt with each reply, under policy "
            "and reference, and sends every position through the output layer. Ours runs the prompt once for both "
            "replies and sends only reply positions through the output layer. The rest is the prompt's forward "
            "and backward pass, whose matrix products of 192 columns do not fill the processor."
        ),
    )


def make_pairs(lm: TransformersLM, num: int) -> tuple[dict[int, Prompt], tuple[Pair, ...]]:
    """A prompt and two different summaries per user."""
    prompts = {prompt.user: prompt for prompt in simulated_prompts(lm, num)}
    texts = list(dict.fromkeys(summaries(40 * num, seed=2)))
    pairs = tuple(Pair(0, user, 0, 1, texts[2 * user], texts[2 * user + 1], 1.0, 0.0) for user in range(num))
    return prompts, pairs


def count_tokens(prompts: dict[int, Prompt], pairs: tuple[Pair, ...], config: DpoConfig, lm: TransformersLM) -> int:
    """Tokens of all pairs as TRL batches them, without padding: each prompt twice, and both replies."""
    replies = sum(lm.count_tokens(text) for pair in pairs for text in (pair.chosen, pair.rejected))
    asked = sum(lm.count_tokens(lm.render(prompts[pair.user])) for pair in pairs)
    return (replies + 2 * asked) * config.epochs


def our_losses(
    prompts: dict[int, Prompt], pairs: tuple[Pair, ...], config: DpoConfig, out: Path, models: Models = BUNDLED
) -> list[float]:
    """The loss of every step of `run_dpo`. The reference is another model, else every loss is ln 2."""
    shutil.rmtree(out, ignore_errors=True)
    trained = run_dpo(TrainingRun(models.lm, out, SEED, models.reference_lm), prompts, pairs, config)
    return [row["loss"] for row in trained.log]


def trl_losses(
    prompts: dict[int, Prompt],
    pairs: tuple[Pair, ...],
    config: DpoConfig,
    out: Path,
    checkpointing: bool | None,
    models: Models = BUNDLED,
) -> list[float]:
    """ALTERNATIVE: TRL with its own defaults, except for what decides the result: order, batch, rate, beta.

    Args:
        checkpointing: recompute activations; None for TRL's default.
    """
    from datasets import Dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    from recloop.training.trainer import load_model, quiet

    lm = models.lm
    rows = select_rows(lm, prompts, pairs, config, SEED).rows
    order = training_order([row.num_tokens for row in rows], config, SEED)
    tokenizer = load_tokenizer(lm)
    conversations = [
        {
            "prompt": messages_of(rows[index].prompt, tokenizer),
            "chosen": reply_of(rows[index].pair.chosen),
            "rejected": reply_of(rows[index].pair.rejected),
        }
        for index in order
    ]
    arguments: dict[str, Any] = {} if checkpointing is None else {"gradient_checkpointing": checkpointing}
    with quiet(SEED):
        trainer = DPOTrainer(
            model=load_model(lm, uses_lora=False),
            ref_model=load_model(models.reference_lm, uses_lora=False),
            args=DPOConfig(
                output_dir=str(out.with_name("trl")),
                seed=SEED,
                use_cpu=True,
                bf16=False,
                max_length=None,
                num_train_epochs=1,
                train_sampling_strategy="sequential",
                per_device_train_batch_size=config.batch_size,
                gradient_accumulation_steps=config.passes_per_step(len(conversations)),
                learning_rate=config.learning_rate,
                lr_scheduler_type="linear",
                beta=config.beta,
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                dataloader_pin_memory=False,
                **arguments,
            ),
            train_dataset=Dataset.from_list(conversations),
            processing_class=tokenizer,
        )
        trainer.remove_callback(_printer())
        trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def _printer() -> Any:
    from transformers import PrinterCallback

    return PrinterCallback
