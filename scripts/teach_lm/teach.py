"""An adapter that teaches a model others made to read prompts of recloop: lessons of invented catalogues, by LoRA.

    make smollm2
    python -m scripts.teach_lm --out runs/teach --num-lessons 608

The lessons are those of the bundled model (`scripts.pretrain_lm.corpus`, `.skills`), in the chat format of the model,
with columns of any name and titles with years, commas and digits. All questions about one history share its tokens.
A whole run is cut into pieces: after a kill, or with more lessons, the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recloop.llm.smollm2 import FOLDER
from recloop.progress import SILENT, Progress
from scripts.pretrain_lm.corpus import Difficulty, Words
from scripts.pretrain_lm.lesson_loss import collate, lesson_loss
from scripts.pretrain_lm.shards import TokenLesson, batches_of, lessons_of_shard
from scripts.pretrain_lm.summaries import MAX_ANSWER_WORDS
from scripts.teach_lm.replay import Replay

if TYPE_CHECKING:
    import torch

# The marks of the bundled model's lessons, as ChatML writes them.
CHAT_ML = (
    ("<|end|><|user|>", "<|im_end|>\n<|im_start|>user\n"),
    ("<|end|><|assistant|>", "<|im_end|>\n<|im_start|>assistant\n"),
    ("<|system|>", "<|im_start|>system\n"),
    ("<|end|>", "<|im_end|>"),
)
OWN_COLUMN = 0.6  # share of columns with any English word for a name
DATED, COMMA, NUMBERED = 0.35, 0.12, 0.06  # shares of titles with a year, an article behind a comma, a number
LESSONS_PER_SHARD = 32


class TeachConfig(BaseModel):
    """All settings that determine the adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Path = Field(default=Path("models") / FOLDER, description="folder of the model that learns")
    seed: int = Field(default=28, ge=0, description="of lessons and first weights")
    num_lessons: int = Field(default=608, ge=1, description="lessons of the whole run")
    rank: int = Field(default=16, ge=1, description="of the adapter, on all linear layers")
    learning_rate: float = Field(default=8e-4, gt=0, description="between warm-up and fall")
    warmup_steps: int = Field(default=10, ge=0, description="steps over which the learning rate rises from 0")
    fall_share: float = Field(default=0.3, gt=0, le=1, description="last share of the lessons, with a falling rate")
    batch_lessons: int = Field(default=3, ge=1, description="lessons of a step")
    batch_tokens: int = Field(default=2048, ge=256, description="padded tokens that are computed together")
    drawn_weight: float = Field(default=0.5, ge=0, description="of a drawn summary's likelihood, as in pretraining")
    max_items: int = Field(default=24, ge=2, description="items of a history")
    counted_share: float = Field(default=0.75, ge=0, le=1, description="histories whose prompt has count lines")
    replay_weight: float = Field(default=1.0, ge=0, description="of the divergence on texts of the model's own")
    replay_texts: int = Field(default=2, ge=1, description="of those, in every step")
    replay_from: int = Field(default=192, ge=0, description="lesson from which on they are read")
    fewest_claims: int = Field(default=4, ge=0, description="of a summary, where the history supports as many")
    short_share: float = Field(default=0.4, ge=0, le=1, description="histories of few items")
    last_bare_share: float = Field(default=0.3, ge=0, le=1, description="in place of bare_share")
    last_skill_share: float = Field(default=0.2, ge=0, le=1, description="in place of skill_share")
    short_from: int = Field(default=512, ge=0, description="lesson from which on these three hold")
    most_words: int = Field(default=22, ge=8, description="of a summary, about, so that it ends within 64 tokens")
    shorter_from: int = Field(default=352, ge=0, description="lesson from which on that holds")
    more_claims_from: int = Field(default=160, ge=0, description="lesson from which on that holds")
    bare_share: float = Field(default=0.15, ge=0, le=1, description="histories whose items have titles alone")
    skill_share: float = Field(default=0.5, ge=0, le=1, description="lessons on next items, requests and reflection")
    candidates_grow_over: int = Field(default=200, ge=1, description="lessons over which candidates grow to their most")
    max_candidates: int = Field(default=20, ge=3, description="candidates in those")
    checkpoint_every_s: float = Field(default=240, gt=0, description="between checkpoints")


class CatalogueWords(Words):
    """Words for catalogues whose columns have any name and whose titles look like those of real logs."""

    def column(self, role: str) -> str:
        if self._rng.random() >= OWN_COLUMN:
            return super().column(role)
        first = self.word().lower()
        return first if self._rng.random() < 0.8 else f"{first} {self.word().lower()}"

    def title(self) -> str:
        title, form = super().title(), self._rng.random()
        if form < COMMA:
            title = f"{title}, {('The', 'A', 'An', 'Les')[self._rng.integers(4)]}"
        elif form < COMMA + NUMBERED:
            title = f"{title} {int(self._rng.integers(2, 3000))}"
        return f"{title} ({int(self._rng.integers(1920, 2026))})" if self._rng.random() < DATED else title


def difficulty_at(lesson: int, config: TeachConfig) -> Difficulty:
    """Few candidates at first: matching is learnt in steps."""
    is_last = lesson >= config.short_from
    grown = min(1.0, lesson / config.candidates_grow_over)
    return Difficulty(
        max_items=config.max_items,
        repeat_share=0.0,
        num_summaries=4,
        num_verdicts=2,
        num_columns=1,
        counted_share=config.counted_share,
        skill_share=config.last_skill_share if is_last else config.skill_share,
        max_candidates=round(4 + grown * (config.max_candidates - 4)),
        lookup_share=0.25 * (1 - grown) + 0.05,
        bare_share=config.last_bare_share if is_last else config.bare_share,
        short_share=config.short_share if is_last else 0.0,
        most_words=config.most_words if lesson >= config.shorter_from else MAX_ANSWER_WORDS,
        fewest_claims=config.fewest_claims if lesson >= config.more_claims_from else 0,
    )


def shard(tokenizer: Any, number: int, config: TeachConfig) -> list[TokenLesson]:
    """The lessons of one shard; they depend on its number, the seed and the difficulty alone."""

    def encode(texts: list[str]) -> list[list[int]]:
        written = [in_chat_ml(text) for text in texts]
        return tokenizer(written, add_special_tokens=False, verbose=False)["input_ids"]

    difficulty = difficulty_at(number * LESSONS_PER_SHARD, config)
    seed = (config.seed, number)
    return lessons_of_shard(encode, len(tokenizer), LESSONS_PER_SHARD, difficulty, seed, 0.0, CatalogueWords)


def in_chat_ml(text: str) -> str:
    """A lesson's text with the marks of ChatML."""
    for own, theirs in CHAT_ML:
        text = text.replace(own, theirs)
    return text


def teach(config: TeachConfig, out: Path, progress: Progress = SILENT) -> Path:
    """The folder of the adapter (float16) after training or resuming."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(config.base)
    torch.manual_seed(config.seed)
    base = AutoModelForCausalLM.from_pretrained(config.base, dtype=torch.float32)
    lora = LoraConfig(r=config.rank, lora_alpha=2 * config.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    state = {"step": 0, "shard": 0}
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        for parameter, value in zip(learnt, saved["learnt"], strict=True):
            parameter.data.copy_(value)
        optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]

    def save() -> None:
        beside = checkpoint.with_suffix(".tmp")
        values = [parameter.data for parameter in learnt]
        torch.save({"learnt": values, "optimizer": optimizer.state_dict(), "state": state}, beside)
        beside.replace(checkpoint)
        export(model, out / "adapter")

    replay = Replay.of(model, tokenizer, out / "replay.json")
    saved_s = time.monotonic()
    num_shards = -(-config.num_lessons // LESSONS_PER_SHARD)
    with progress.stage("teach", total=num_shards * LESSONS_PER_SHARD, unit="lessons") as advance:
        advance.skip(state["shard"] * LESSONS_PER_SHARD)
        while state["shard"] < num_shards:
            lessons = shard(tokenizer, state["shard"], config)
            is_held = state["shard"] * LESSONS_PER_SHARD >= config.replay_from
            held = replay if is_held else None
            line = _train_on_shard(model, optimizer, lessons, state, num_shards, config, held)
            state = {"step": line["step"], "shard": state["shard"] + 1}
            with (out / "curve.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            advance(LESSONS_PER_SHARD)
            if time.monotonic() - saved_s > config.checkpoint_every_s:
                save()
                saved_s = time.monotonic()
    save()
    return out / "adapter"


def export(model: Any, folder: Path) -> None:
    """Write the adapter in half precision; the one in memory does not change."""
    from safetensors.torch import load_file, save_file

    model.save_pretrained(folder)
    file = folder / "adapter_model.safetensors"
    save_file({name: value.half() for name, value in load_file(file).items()}, file)


def _train_on_shard(
    model: Any,
    optimizer: torch.optim.Optimizer,
    lessons: list[TokenLesson],
    state: dict[str, int],
    num_shards: int,
    config: TeachConfig,
    replay: Replay | None,
) -> dict[str, Any]:
    """A line of the curve, after training on every lesson of a shard, some of them a step."""
    import torch

    rng = np.random.default_rng([config.seed, state["shard"], 1])
    started_s, losses, tokens, step = time.monotonic(), [], 0, state["step"]
    divergences: list[float] = []
    model.train()
    for first in range(0, len(lessons), config.batch_lessons):
        together = lessons[first : first + config.batch_lessons]
        done = (state["shard"] + first / len(lessons)) / num_shards
        fall = min(1.0, (1 - done) / config.fall_share)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps)) * fall
        num_pairs = sum(len(lesson.target_S) for lesson in together)
        total = 0.0
        for part in batches_of(together, config.batch_tokens, rng):
            batch = collate(part)
            share = len(batch.target_S) / num_pairs
            loss = share * lesson_loss(model.base_model.model, batch, None, config.drawn_weight)
            loss.backward()
            total += loss.item()
            tokens += batch.ids_BT.numel()
        if replay is not None:
            divergence = replay.loss(model, step, config.replay_texts)
            (config.replay_weight * divergence).backward()
            divergences.append(divergence.item())
        torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total)
        step += 1
    wall_s = time.monotonic() - started_s
    return {
        "step": step,
        "lessons": (state["shard"] + 1) * LESSONS_PER_SHARD,
        "loss": float(np.mean(losses)),
        "divergence": float(np.mean(divergences)) if divergences else None,
        "tokens": tokens,
        "tokens_per_s": tokens / wall_s,
    }
