"""The recipe of the bundled LM: corpus, curriculum, training loop, export.

    python -m scripts.pretrain_lm --out work/lm --budget-tokens 20000000

Reading is taught first, with repeated sequences, then short histories, then long ones, without hard switches. The
learning rate is constant after a warm-up and falls to zero over the last part of the budget. So a run can continue
with a larger budget from any checkpoint before the fall. The same seed and budget give the same weights on one machine
with one number of threads. After a kill, the same command resumes from the last checkpoint.
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
)
from scripts.pretrain_lm.tokenizer import SPECIALS, english_words, train_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


class PretrainConfig(BaseModel):
    """All settings that determine the bundled LM's weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=20, ge=0, description="of corpus, order and initial weights")
    vocab_size: int = Field(default=8192, ge=512, description="number of tokens of the tokenizer")
    width: int = Field(default=192, ge=16, description="of a token's vector")
    num_layers: int = Field(default=4, ge=1, description="transformer layers")
    num_heads: int = Field(default=6, ge=1, description="attention heads of a layer, which share its width")
    mlp_width: int = Field(default=512, ge=16, description="inner width of a layer's two-layer network")
    budget_tokens: int = Field(default=20_000_000, ge=1000, description="padded tokens of the whole run")
    fall_share: float = Field(
        default=0.2, gt=0, le=1, description="last share of the budget, over which the learning rate falls to 0"
    )
    batch_tokens: int = Field(
        default=2048, ge=256, description="padded tokens per step; fewer while only repeated sequences are taught"
    )
    learning_rate: float = Field(default=2e-3, gt=0, description="between warm-up and fall")
    num_negatives: int = Field(
        default=1024,
        ge=0,
        description="random tokens of the sampled softmax, beside those of the batch",
    )
    full_softmax_from: float = Field(
        default=0.85, ge=0, le=1, description="share of the budget before the softmax is over all tokens"
    )
    warmup_steps: int = Field(default=100, ge=0, description="steps over which the learning rate rises from 0")
    weight_decay: float = Field(default=0.01, ge=0, description="of AdamW")
    lessons_per_shard: int = Field(default=128, ge=1, description="lessons invented together")
    repeat_tokens: int = Field(default=200_000, ge=1, description="tokens at the start with repeated sequences only")
    reading_tokens: int = Field(
        default=5_000_000, ge=1, description="tokens over which lessons grow to their full size"
    )
    counted_share: float = Field(default=0.6, ge=0, le=1, description="share of histories whose prompt has count lines")
    skill_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of lessons about next items, reflection and requests; the rest are summaries",
    )
    max_candidates: int = Field(default=20, ge=3, description="candidates in those lessons")
    lookup_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="share of those lessons that only look up lines of a list; start with many and few candidates",
    )
    drawn_weight: float = Field(
        default=0.3,
        ge=0,
        description="weight of a drawn summary's likelihood, beside that of all equally true ones",
    )
    start: Path | None = Field(
        default=None,
        description="exported folder with the first weights and the tokenizer; lessons have their full size from "
        "the start; None: random weights",
    )
    start_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the first weights in the mean with the trained ones that is exported",
    )
    sharpness: float = Field(
        default=1.0,
        gt=0,
        description="factor on the exported model's logits; above 1 it samples the tail less often",
    )
    checkpoint_every_s: float = Field(default=300, gt=0, description="between checkpoints: the most that a kill loses")

    @model_validator(mode="after")
    def _has_what_it_shares(self) -> PretrainConfig:
        if self.start_share and self.start is None:
            raise SettingError(
                f"start_share needs the weights of --start, got {self.start_share} without start; give start"
            )
        return self


def difficulty_at(tokens: int, config: PretrainConfig) -> Difficulty:
    """The size and mix of lessons after so many tokens."""
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
    """The tokenizer of this recipe, learnt from words and from lessons that are in no shard."""
    rng = np.random.default_rng([config.seed, 2**31])
    words = Words(english_words(), rng)
    lessons = [invent_lesson(words, Difficulty(30, 0.0, 8, 8, 2), rng) for _ in range(300)]
    phrases = [text for x in lessons for text in (x.trunk, *("\n" + b.question for b in x.branches))]
    phrases += [answer for x in lessons for branch in x.branches for answer in branch.answers]
    return train_tokenizer(phrases, config.vocab_size, config.seed)


def _tokenizer_of(config: PretrainConfig, folder: Path) -> PreTrainedTokenizerFast:
    """The run's tokenizer, made once, since the weights depend on its token ids."""
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
    """A Llama with weights drawn from the config's seed, or with those of `config.start`."""
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
    """The learning rate: a warm-up by steps, then constant, then a linear fall over the budget's last share."""
    left = 1 - tokens / config.budget_tokens
    fall = min(1.0, max(0.0, left / config.fall_share))
    return config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps)) * fall


def pretrain(config: PretrainConfig, out: Path, progress: Progress = SILENT) -> Path:
    """The exported Hugging Face folder (float16 weights, tokenizer, chat template) after training or resuming.

    Args:
        config: the recipe.
        out: working folder for the checkpoint, `curve.jsonl` and the exported model in `model/`.

    Raises:
        SettingError: `out` has a run of another recipe.
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
            lessons = _shard(config, tokenizer, state["shard"], state["tokens"])
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
    """The state after training on every batch of one shard; one line is added to the curve."""
    import torch

    started, losses, tokens, pairs = time.perf_counter(), [], 0, 0
    model.train()
    for lessons in batches:
        rate = learning_rate_at(state["step"] + len(losses), state["tokens"] + tokens, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = collate(lessons)
        negatives = None
        if state["tokens"] < config.full_softmax_from * config.budget_tokens:
            negatives = torch.from_numpy(rng.integers(config.vocab_size, size=config.num_negatives))
        loss = lesson_loss(model, batch, negatives, config.drawn_weight)
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


def _shard(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, number: int, tokens: int) -> list[TokenLesson]:
    """The lessons of one shard."""

    def encode(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False)["input_ids"]  # pyright: ignore

    difficulty = difficulty_at(tokens, config)
    return lessons_of_shard(encode, len(tokenizer), config.lessons_per_shard, difficulty, (config.seed, number))


def export(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    sharpness: float = 1.0,
    start: LlamaForCausalLM | None = None,
    start_share: float = 0.0,
) -> None:
    """Write a Hugging Face folder with float16 weights; the model in memory does not change.

    Args:
        sharpness: factor on the logits, applied to the weight of the last norm, so that any loader has it. A model
            trained for long needs none; this small one gives a tenth of its probability to words that are not in
            the prompt.
        start, start_share: the model with the first weights, and its share in the mean of both. With it, lessons of a
            new kind make the model forget less (Wortsman et al., arXiv 2109.01903).
    """
    import copy

    exported = copy.deepcopy(model)
    if start is not None:
        for mine, theirs in zip(exported.parameters(), start.parameters(), strict=True):
            mine.data.lerp_(theirs.data, start_share)
    exported.model.norm.weight.data *= sharpness
    # Without it, a server that reads this file would decode greedily whatever the temperature.
    exported.generation_config.do_sample = True
    exported.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _check_same_recipe(config: PretrainConfig, path: Path) -> None:
    """Raise for a run of another recipe; budget and checkpoint interval may differ."""
    free = {"budget_tokens", "fall_share", "full_softmax_from", "start_share", "sharpness"}
    free.add("checkpoint_every_s")
    mine = {k: v for k, v in config.model_dump(mode="json").items() if k not in free}
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        differing = sorted(k for k in mine if theirs.get(k) != mine[k])
        if differing:
            raise SettingError(
                f"{path.parent} has a run of another recipe: {', '.join(differing)} differ; "
                f"use another --out or delete that folder"
            )
    path.write_text(json.dumps(mine, indent=2), encoding="utf-8")
