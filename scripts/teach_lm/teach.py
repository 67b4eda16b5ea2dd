"""An adapter that teaches a model others made to read prompts of recloop: lessons of invented catalogues, by LoRA.

    make smollm2
    python -m scripts.teach_lm --out runs/teach

The lessons are those of the bundled model (`scripts.pretrain_lm.corpus`, `.skills`), in the chat format of the model,
with columns of any name and titles with years, commas and digits. All questions about one history share its tokens.
After a kill, or with more lessons in the last stage, the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import bisect
import itertools
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recloop.llm.smollm2 import FOLDER
from recloop.progress import SILENT, Progress
from recloop.prompts.lines import clean_title
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
TWO_WORDS = 0.35  # share of those that have two
LOWER, NEWS = 0.22, 0.15  # shares of titles in lower case, like groceries, and of titles like those of news
DATED, COMMA, NUMBERED = 0.35, 0.12, 0.06  # of the others: with a year, an article behind a comma, a number
SMALL_WORDS = ("of", "and", "the", "in", "to", "for", "a", "is", "with", "on", "as", "after", "that", "who", "his")
INNER_MARKS = (":", ",", "'s", "?", " -", "...", "%", "'")  # after a word of these
LESSONS_PER_SHARD = 32


class Stage(BaseModel):
    """Lessons of one kind and the rate at which they are learnt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lessons: int = Field(ge=LESSONS_PER_SHARD, multiple_of=LESSONS_PER_SHARD, description="how many there are")
    learning_rate: float = Field(default=8e-4, gt=0, description="at the first of them")
    last_rate: float = Field(default=8e-4, ge=0, description="at the end of the last; between the two it is linear")
    batch_lessons: int = Field(default=3, ge=1, description="lessons of a step")
    drawn_weight: float = Field(default=0.5, ge=0, description="of a drawn summary's likelihood, as in pretraining")
    replay_weight: float = Field(default=1.0, ge=0, description="of the divergence on texts of the model's own")
    counted_share: float = Field(default=0.75, ge=0, le=1, description="histories whose prompt has count lines")
    bare_share: float = Field(default=0.15, ge=0, le=1, description="histories whose items have titles alone")
    short_share: float = Field(default=0.0, ge=0, le=1, description="histories of few items")
    skill_share: float = Field(default=0.5, ge=0, le=1, description="lessons on next items, requests and reflection")
    fewest_claims: int = Field(default=4, ge=0, description="of a summary, where the history supports as many")
    most_words: int = Field(default=22, ge=8, description="of a summary, about, so that it ends within 64 tokens")
    num_summaries: int = Field(default=4, ge=1, description="of a history")


# As the adapter was made: each mends what the one before it had shown. After the sixth, texts of short histories still
# went on after their end.
STAGES = (
    Stage(lessons=160, replay_weight=0, fewest_claims=0, most_words=MAX_ANSWER_WORDS),
    Stage(lessons=32, replay_weight=0, most_words=MAX_ANSWER_WORDS),
    Stage(lessons=160, most_words=MAX_ANSWER_WORDS),
    Stage(lessons=64),
    Stage(lessons=96, last_rate=4e-4),
    Stage(lessons=96, learning_rate=4e-4, last_rate=0, bare_share=0.3, short_share=0.4, skill_share=0.2),
    Stage(
        lessons=384,
        learning_rate=6e-4,
        last_rate=8.6e-5,
        batch_lessons=4,
        drawn_weight=0.3,
        bare_share=0.3,
        short_share=0.75,
        skill_share=0.2,
        num_summaries=6,
    ),
)


class TeachConfig(BaseModel):
    """All settings that determine the adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Path = Field(default=Path("models") / FOLDER, description="folder of the model that learns")
    seed: int = Field(default=28, ge=0, description="of lessons and first weights")
    stages: tuple[Stage, ...] = Field(default=STAGES, min_length=1, description="the lessons, one stage after another")
    rank: int = Field(default=16, ge=1, description="of the adapter, on all linear layers")
    warmup_steps: int = Field(default=10, ge=0, description="steps over which the learning rate rises from 0")
    batch_tokens: int = Field(default=2048, ge=256, description="padded tokens that are computed together")
    max_items: int = Field(default=24, ge=2, description="items of a history")
    replay_texts: int = Field(default=2, ge=1, description="texts of the model's own in a step that replays any")
    candidates_grow_over: int = Field(default=200, ge=1, description="lessons over which candidates grow to their most")
    max_candidates: int = Field(default=20, ge=3, description="candidates in those")
    checkpoint_every_s: float = Field(default=240, gt=0, description="between checkpoints")

    @property
    def num_lessons(self) -> int:
        """Lessons of all stages together."""
        return sum(stage.lessons for stage in self.stages)

    def at(self, lesson: float) -> tuple[Stage, float]:
        """The stage of a lesson (counted from 0, parts of one allowed) and the learning rate there."""
        ends = list(itertools.accumulate(stage.lessons for stage in self.stages))
        number = min(bisect.bisect_right(ends, lesson), len(ends) - 1)
        stage = self.stages[number]
        first = ends[number] - stage.lessons
        done = min(1.0, (lesson - first) / stage.lessons)
        return stage, stage.learning_rate + done * (stage.last_rate - stage.learning_rate)


class CatalogueWords(Words):
    """Words for catalogues whose columns have any name and whose titles look like those of real logs."""

    def column(self, role: str) -> str:
        if self._rng.random() >= OWN_COLUMN:
            return super().column(role)
        first = self.word().lower()
        return f"{first} {self.word().lower()}" if self._rng.random() < TWO_WORDS else first

    def title(self) -> str:
        kind = self._rng.random()
        if kind < LOWER:
            return self.product()
        if kind < LOWER + NEWS:
            return self.news_title()
        title, form = super().title(), self._rng.random()
        if form < COMMA:
            title = f"{title}, {('The', 'A', 'An', 'Les')[self._rng.integers(4)]}"
        elif form < COMMA + NUMBERED:
            title = f"{title} {int(self._rng.integers(2, 3000))}"
        return f"{title} ({int(self._rng.integers(1920, 2026))})" if self._rng.random() < DATED else title

    def product(self) -> str:
        """One to three words in lower case, some joined by a slash or a hyphen."""
        words = [self.word().lower() for _ in range(int(self._rng.integers(1, 4)))]
        joints = [(" ", "/", "-", " & ")[int(self._rng.choice(4, p=[0.8, 0.1, 0.05, 0.05]))] for _ in words[1:]]
        return words[0] + "".join(joint + word for joint, word in zip(joints, words[1:], strict=True))

    def news_title(self) -> str:
        """A sentence with marks and numbers, cut as prompts cut it."""
        words = []
        for _ in range(int(self._rng.integers(4, 13))):
            form = self._rng.random()
            word = self.word() if form < 0.6 else SMALL_WORDS[self._rng.integers(len(SMALL_WORDS))]
            word = str(int(self._rng.integers(1, 3000))) if form > 0.93 else word.lower() if form < 0.2 else word
            words.append(
                word + (INNER_MARKS[self._rng.integers(len(INNER_MARKS))] if self._rng.random() < 0.12 else "")
            )
        return clean_title(" ".join(words))


def difficulty_at(lesson: int, config: TeachConfig) -> Difficulty:
    """Few candidates at first: matching is learnt in steps."""
    stage, _ = config.at(lesson)
    grown = min(1.0, lesson / config.candidates_grow_over)
    return Difficulty(
        max_items=config.max_items,
        repeat_share=0.0,
        num_summaries=stage.num_summaries,
        num_verdicts=2,
        num_columns=1,
        counted_share=stage.counted_share,
        skill_share=stage.skill_share,
        max_candidates=round(4 + grown * (config.max_candidates - 4)),
        lookup_share=0.25 * (1 - grown) + 0.05,
        bare_share=stage.bare_share,
        short_share=stage.short_share,
        most_words=stage.most_words,
        fewest_claims=stage.fewest_claims,
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
    optimizer = torch.optim.AdamW(learnt, betas=(0.9, 0.98), weight_decay=0.0)
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
    num_shards = config.num_lessons // LESSONS_PER_SHARD
    with progress.stage("teach", total=config.num_lessons, unit="lessons") as advance:
        advance.skip(state["shard"] * LESSONS_PER_SHARD)
        while state["shard"] < num_shards:
            lessons = shard(tokenizer, state["shard"], config)
            line = _train_on_shard(model, optimizer, lessons, state, config, replay)
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
    config: TeachConfig,
    replay: Replay,
) -> dict[str, Any]:
    """A line of the curve, after training on every lesson of a shard, some of them a step."""
    import torch

    rng = np.random.default_rng([config.seed, state["shard"], 1])
    started_s, losses, tokens, step = time.monotonic(), [], 0, state["step"]
    divergences: list[float] = []
    model.train()
    stage, _ = config.at(state["shard"] * LESSONS_PER_SHARD)
    for first in range(0, len(lessons), stage.batch_lessons):
        together = lessons[first : first + stage.batch_lessons]
        _, rate = config.at(state["shard"] * LESSONS_PER_SHARD + first)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
        num_pairs = sum(len(lesson.target_S) for lesson in together)
        total = 0.0
        for part in batches_of(together, config.batch_tokens, rng):
            batch = collate(part)
            share = len(batch.target_S) / num_pairs
            loss = share * lesson_loss(model.base_model.model, batch, None, stage.drawn_weight)
            loss.backward()
            total += loss.item()
            tokens += batch.ids_BT.numel()
        if stage.replay_weight:
            divergence = replay.loss(model, step, config.replay_texts)
            (stage.replay_weight * divergence).backward()
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
