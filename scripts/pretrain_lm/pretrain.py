"""The recipe that made the bundled LM: corpus, curriculum, training loop, export.

    python -m scripts.pretrain_lm --out work/lm --budget-tokens 20000000

Reading is taught first: repeated sequences, then short histories, then long ones; mixed, never a hard
switch. The learning rate is constant after a warm-up and falls to zero over the last part of the budget,
so a run can be continued with a larger budget from any checkpoint taken before the fall. Same seed and
budget, same weights (on one machine with one thread count); killed at any time, the same command goes on
from the last checkpoint.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from recloop.errors import SettingError
from recloop.progress import SILENT, Progress
from scripts.pretrain_lm.corpus import Difficulty, Words, invent_lesson
from scripts.pretrain_lm.lesson_loss import collate, lesson_loss
from scripts.pretrain_lm.reader_start import start_as_a_reader
from scripts.pretrain_lm.shards import (
    TokenLesson,
    batches_of,
    lessons_of_shard,
    load_shard,
    save_shard,
)
from scripts.pretrain_lm.tokenizer import SPECIALS, english_words, train_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


class PretrainConfig(BaseModel):
    """Everything that decides the bundled LM's weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=20, ge=0, description="of corpus, order and initial weights")
    vocab_size: int = Field(default=8192, ge=512, description="pieces of the tokenizer in all")
    width: int = Field(default=192, ge=16, description="of a token's vector")
    num_layers: int = Field(default=4, ge=1, description="transformer layers")
    num_heads: int = Field(default=6, ge=1, description="attention heads of a layer; they share its width")
    mlp_width: int = Field(default=512, ge=16, description="inner width of a layer's two-layer network")
    budget_tokens: int = Field(default=20_000_000, ge=1000, description="padded tokens in all")
    fall_share: float = Field(
        default=0.2, gt=0, le=1, description="last share of the budget over which the rate falls to 0"
    )
    batch_tokens: int = Field(
        default=2048, ge=256, description="padded tokens a step; fewer while only repeats are taught"
    )
    learning_rate: float = Field(default=2e-3, gt=0, description="between warm-up and fall")
    num_baselines: int = Field(
        default=1024,
        ge=0,
        description="random tokens that compete beside those of the batch, while not all do",
    )
    full_softmax_from: float = Field(default=0.85, ge=0, le=1, description="share of the budget before all tokens do")
    warmup_steps: int = Field(default=100, ge=0, description="steps over which the rate rises from 0")
    weight_decay: float = Field(default=0.01, ge=0, description="of AdamW")
    lessons_per_shard: int = Field(default=128, ge=1, description="lessons invented together, and kept as one file")
    repeat_tokens: int = Field(default=200_000, ge=1, description="tokens of repeated sequences alone, at the start")
    reading_tokens: int = Field(default=5_000_000, ge=1, description="tokens over which lessons then grow to full size")
    counted_share: float = Field(
        default=0.6, ge=0, le=1, description="share of histories whose prompt carries count lines"
    )
    skill_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of lessons about next items, reflection and requests; the rest are summaries",
    )
    max_candidates: int = Field(default=20, ge=3, description="in those lessons")
    lookup_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="share of those lessons that only look up lines of a list; begin with most of them, and "
        "with few candidates",
    )
    drawn_weight: float = Field(
        default=0.3,
        ge=0,
        description="weight of a drawn summary's own likelihood beside that of all that is as true",
    )
    start: Path | None = Field(
        default=None,
        description="exported folder whose weights and tokenizer to go on from, with lessons at full size; "
        "None starts afresh",
    )
    start_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the starting weights in the exported ones; the trained ones are the rest",
    )
    sharpness: float = Field(
        default=1.0,
        gt=0,
        description="factor on the exported model's logits; above 1 it samples less of the tail",
    )
    checkpoint_every_s: float = Field(default=300, gt=0, description="between checkpoints: what a kill can cost")

    @model_validator(mode="after")
    def _has_what_it_shares(self) -> PretrainConfig:
        if self.start_share and self.start is None:
            raise SettingError(
                f"start_share is of the weights in --start, got {self.start_share} and no start; give one"
            )
        return self


def difficulty_at(tokens: int, config: PretrainConfig) -> Difficulty:
    """The curriculum: how hard lessons are after so many tokens."""
    if config.start is not None:
        tokens += config.repeat_tokens + config.reading_tokens
    grown = min(max(0.0, (tokens - config.repeat_tokens) / config.reading_tokens), 1.0)
    return Difficulty(
        max_items=round(5 + 25 * max(0.0, (grown - 0.3) / 0.7) ** 1.3),
        repeat_share=1.0 if tokens < config.repeat_tokens else max(0.04, 0.3 * (1 - grown / 0.25)),
        num_summaries=round(2 + 6 * grown),
        num_verdicts=4,
        num_columns=round(4 - 3 * grown),
        counted_share=config.counted_share,
        skill_share=config.skill_share,
        max_candidates=config.max_candidates,
        lookup_share=config.lookup_share,
    )


def make_tokenizer(config: PretrainConfig) -> PreTrainedTokenizerFast:
    """The tokenizer of this recipe, learnt from words and from lessons that no shard holds."""
    rng = np.random.default_rng([config.seed, 2**31])
    words = Words(english_words(), rng)
    lessons = [invent_lesson(words, Difficulty(30, 0.0, 8, 8, 2), rng) for _ in range(300)]
    phrases = [text for x in lessons for text in (x.trunk, *("\n" + b.question for b in x.branches))]
    phrases += [answer for x in lessons for branch in x.branches for answer in branch.answers]
    return train_tokenizer(phrases, config.vocab_size, config.seed)


def _tokenizer_of(config: PretrainConfig, folder: Path) -> PreTrainedTokenizerFast:
    """The run's tokenizer, made once: its token ids are what the weights know."""
    from transformers import PreTrainedTokenizerFast

    if (folder / "tokenizer.json").exists():
        return PreTrainedTokenizerFast.from_pretrained(folder)
    if config.start is None:
        tokenizer = make_tokenizer(config)
    else:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(config.start)
    beside = folder.with_suffix(".tmp")
    tokenizer.save_pretrained(beside)
    beside.replace(folder)
    return tokenizer


def make_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama with fresh weights, drawn from the config's seed, or with those of `config.start`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if config.start is not None:
        return LlamaForCausalLM.from_pretrained(config.start, dtype=torch.float32)
    torch.manual_seed(config.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_heads,
            max_position_embeddings=2048,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=SPECIALS.index("<|end|>"),
            pad_token_id=SPECIALS.index("<|pad|>"),
        )
    )
    start_as_a_reader(model)
    return model


def learning_rate_at(step: int, tokens: int, config: PretrainConfig) -> float:
    """Warm-up by steps, then constant, then a linear fall over the budget's last share."""
    left = 1 - tokens / config.budget_tokens
    fall = min(1.0, max(0.0, left / config.fall_share))
    return config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps)) * fall


def pretrain(config: PretrainConfig, out: Path, progress: Progress = SILENT) -> Path:
    """Train, or go on training, and export.

    Args:
        config: the recipe.
        out: work folder; holds shards, the checkpoint, `curve.jsonl` and the exported model in `model/`.

    Returns:
        The exported Hugging Face folder (float16 weights, tokenizer, chat template).

    Raises:
        SettingError: `out` holds a run of another recipe.
    """
    import torch

    out.mkdir(parents=True, exist_ok=True)
    _check_same_recipe(config, out / "recipe.json")
    tokenizer = _tokenizer_of(config, out / "tokenizer")
    model = make_model(config, tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=config.weight_decay,
        fused=True,
    )
    state = {"step": 0, "tokens": 0, "shard": 0}
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]

    def save() -> None:
        beside = checkpoint.with_suffix(".tmp")
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "state": state}, beside)
        beside.replace(checkpoint)
        start = make_model(config, tokenizer) if config.start_share else None
        export(model, tokenizer, out / "model", config.sharpness, start, config.start_share)

    saved_at = time.monotonic()
    with progress.stage("pretrain", total=config.budget_tokens, unit="tokens") as advance:
        advance.skip(state["tokens"])
        while state["tokens"] < config.budget_tokens:
            lessons = _shard(config, tokenizer, state["shard"], state["tokens"], out / "shards")
            rng = np.random.default_rng([config.seed, state["shard"], 1])
            before = state["tokens"]
            reads = before >= config.repeat_tokens or config.start is not None
            size = config.batch_tokens if reads else config.batch_tokens // 3
            batches = batches_of(lessons, size, rng)
            state = _train_on_shard(model, optimizer, batches, state, config, rng, out)
            advance(state["tokens"] - before)
            if time.monotonic() - saved_at > config.checkpoint_every_s:
                save()
                saved_at = time.monotonic()
    save()
    return out / "model"


def _train_on_shard(
    model: LlamaForCausalLM,
    optimizer: torch.optim.Optimizer,
    batches: list[list[TokenLesson]],
    state: dict[str, int],
    config: PretrainConfig,
    rng: np.random.Generator,
    out: Path,
) -> dict[str, int]:
    """Train on every batch of one shard; returns the state after it and appends one line to the curve."""
    import torch

    started, losses, tokens, pairs = time.perf_counter(), [], 0, 0
    model.train()
    for lessons in batches:
        rate = learning_rate_at(state["step"] + len(losses), state["tokens"] + tokens, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = collate(lessons)
        baselines = None
        if state["tokens"] < config.full_softmax_from * config.budget_tokens:
            baselines = torch.from_numpy(rng.integers(config.vocab_size, size=config.num_baselines))
        loss = lesson_loss(model, batch, baselines, config.drawn_weight)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        tokens += batch.ids_BT.numel()
        pairs += len(batch.target_S)
    after = {
        "step": state["step"] + len(losses),
        "tokens": state["tokens"] + tokens,
        "shard": state["shard"] + 1,
    }
    line: dict[str, Any] = {
        **after,
        "loss": float(np.mean(losses)),
        "supervised_share": pairs / max(1, tokens),
        "tokens_per_s": tokens / (time.perf_counter() - started),
    }
    with (out / "curve.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return after


def _shard(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, number: int, tokens: int, folder: Path
) -> list[TokenLesson]:
    """The lessons of one shard, from disk where they were built beforehand."""
    path = folder / f"{number:06d}.npz"
    if path.exists():
        return load_shard(path)

    def encode(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False)["input_ids"]  # pyright: ignore

    difficulty = difficulty_at(tokens, config)
    return lessons_of_shard(encode, len(tokenizer), config.lessons_per_shard, difficulty, (config.seed, number))


def build_shards(config: PretrainConfig, out: Path, tokens_per_shard: int, progress: Progress = SILENT) -> None:
    """Write all shards of the budget beforehand, so that an accelerator never waits for the corpus.

    Args:
        tokens_per_shard: expected padded tokens of one shard, which places each shard on the curriculum.
    """
    folder = out / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer_of(config, out / "tokenizer")
    count = -(-config.budget_tokens // tokens_per_shard)
    with progress.stage("build shards", total=count, unit="shards") as advance:
        for number in range(count):
            path = folder / f"{number:06d}.npz"
            if not path.exists():
                save_shard(path, _shard(config, tokenizer, number, number * tokens_per_shard, folder))
            advance(1)


def export(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    sharpness: float = 1.0,
    start: LlamaForCausalLM | None = None,
    start_share: float = 0.0,
) -> None:
    """Write a Hugging Face folder with float16 weights; the model in memory is left as it is.

    Args:
        sharpness: factor on the logits, put into the weight of the last norm, so that any loader applies it.
            A model trained for long needs none; this small one spreads a tenth of its probability over words
            that the prompt does not hold.
        start, start_share: the model it started from, and its share in the mean of both. Lessons of a new
            kind then cost less of what was known before (Wortsman and others, arXiv 2109.01903).
    """
    import copy

    exported = copy.deepcopy(model)
    if start is not None:
        for mine, theirs in zip(exported.parameters(), start.parameters(), strict=True):
            mine.data.lerp_(theirs.data, start_share)
    exported.model.norm.weight.data *= sharpness
    # A server that goes by this file would else take the likeliest token whatever the temperature.
    exported.generation_config.do_sample = True
    exported.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _check_same_recipe(config: PretrainConfig, path: Path) -> None:
    """Refuse to continue another recipe; budget and checkpoint interval may differ."""
    free = {"budget_tokens", "fall_share", "full_softmax_from", "start_share", "sharpness"}
    free.add("checkpoint_every_s")
    mine = {k: v for k, v in config.model_dump(mode="json").items() if k not in free}
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        differing = sorted(k for k in mine if theirs.get(k) != mine[k])
        if differing:
            raise SettingError(
                f"{path.parent} holds a run of another recipe: {', '.join(differing)} differ; "
                f"use another --out or delete that folder"
            )
    path.write_text(json.dumps(mine, indent=2), encoding="utf-8")
