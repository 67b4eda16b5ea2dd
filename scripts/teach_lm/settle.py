"""`python -m scripts.teach_lm.settle`: An adapter goes back to its base wherever recloop asks nothing.

    python -m scripts.teach_lm.settle --lessons runs/own-texts/adapter --out runs/settled

Lessons move what a model predicts of any text. Here two divergences become small together: from the model without its
adapter, on texts which that model goes on writing from a word and on its answers to everyday instructions; and from the
model as it is now, on its own texts about invented histories and sessions. So it forgets less and says the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

import recloop as rl
from recloop.llm.chat import render_prompt
from recloop.llm.smollm2 import LESSONS, base_folder, merge_adapter
from recloop.progress import SILENT, Progress
from scripts.pretrain_lm.tokenizer import english_words
from scripts.settings_command import settings_command
from scripts.teach_lm.own_texts import OwnTextsConfig, export, invented_prompt, invented_session
from scripts.teach_lm.replay import Replay
from scripts.teach_lm.replay import own_texts as answers_and_openings

if TYPE_CHECKING:
    import torch

AT_ONCE = 16  # general texts that are written together


class SettleConfig(BaseModel):
    """Which adapter settles, and on which texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lessons: Path = Field(default=LESSONS, description="folder of the adapter")
    seed: int = Field(default=29, ge=0, description="of histories, sessions and texts")
    own: int = Field(default=120, ge=2, description="own texts, half about histories and half about sessions")
    most_prompt_tokens: int = Field(default=640, ge=64, description="of the prompt of an own text; others are left out")
    general: int = Field(default=64, ge=1, description="texts of the model without the adapter")
    general_tokens: int = Field(default=192, ge=8, description="of such a text")
    steps: int = Field(default=80, ge=1, description="of training")
    own_at_once: int = Field(default=3, ge=1, description="own texts of a step")
    general_at_once: int = Field(default=2, ge=1, description="general texts of a step")
    general_weight: float = Field(default=1.0, ge=0, description="of the divergence on general texts")
    learning_rate: float = Field(default=2e-4, gt=0, description="at the first step; it falls to 0")


def settle(config: SettleConfig, out: Path, progress: Progress = SILENT) -> str:
    """The two divergences at the first and last steps; the adapter is in ``OUT/adapter``."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(base_folder())
    torch.manual_seed(config.seed)
    plain: Any = AutoModelForCausalLM.from_pretrained(base_folder(), dtype=torch.float32)
    model: Any = PeftModel.from_pretrained(plain, config.lessons, is_trainable=True)
    whole = out / "whole"
    if not whole.exists():
        merge_adapter(base_folder(), config.lessons, whole)
    before: Any = AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32).eval()
    general = _kept(out / "general.json", lambda: general_texts(model, tokenizer, config, progress))
    answers = _kept(out / "answers.json", lambda: answers_and_openings(model, tokenizer))
    general = [text for pair in zip_longest(general, answers) for text in pair if text]
    own = _kept(out / "own.json", lambda: own_texts(whole, tokenizer, config, out, progress))
    replay = Replay(general, int(tokenizer.eos_token_id))
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, betas=(0.9, 0.98), weight_decay=0.0)
    model.train()
    curve: list[tuple[float, float]] = []
    with progress.stage("settle", total=config.steps, unit="steps") as advance:
        for step in range(config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * (1 - step / config.steps)
            moved = 0.0
            for number in range(config.own_at_once):
                ids, reply_start = own[(step * config.own_at_once + number) % len(own)]
                loss = divergence(before, model, torch.tensor([ids]), reply_start) / config.own_at_once
                loss.backward()
                moved += loss.item()
            far = replay.loss(model, step, config.general_at_once)
            (config.general_weight * far).backward()
            torch.nn.utils.clip_grad_norm_(learnt, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            curve.append((moved, far.item()))
            advance()
    (out / "curve.json").write_text(json.dumps(curve), encoding="utf-8")
    model.save_pretrained(out / "trained")
    export(out / "trained", out / "adapter")
    few = min(10, config.steps)
    first, last = np.mean(curve[:few], axis=0), np.mean(curve[-few:], axis=0)
    return (
        f"divergence a token, first and last {few} steps: own texts {first[0]:.4f}, {last[0]:.4f}; "
        f"general texts {first[1]:.4f}, {last[1]:.4f}"
    )


def divergence(before: Any, model: Any, ids_1T: torch.Tensor, reply_start: int) -> torch.Tensor:
    """Of the predictions of the reply's tokens from those of `before`, mean per token."""
    import torch

    kept = ids_1T.shape[1] - reply_start + 1  # the last one predicts what comes after the text
    with torch.no_grad():
        before_RV = before(input_ids=ids_1T, logits_to_keep=kept).logits[0, :-1].log_softmax(-1)
    now_RV = model(input_ids=ids_1T, logits_to_keep=kept).logits[0, :-1].log_softmax(-1)
    return (before_RV.exp() * (before_RV - now_RV)).sum(-1).mean()


def own_texts(
    whole: Path, tokenizer: Any, config: SettleConfig, out: Path, progress: Progress
) -> list[tuple[list[int], int]]:
    """Token ids of prompts and the texts that the adapter's model writes to them, and where these begin."""
    asked = OwnTextsConfig(seed=config.seed, histories=config.own // 2, bare_share=0.5, news_share=0.4)
    prompts = [invented_prompt(number, asked, 0)[0] for number in range(config.own // 2)]
    prompts += [invented_session(number, asked, 0)[0] for number in range(config.own // 2)]

    def tokens_of(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    told = {prompt.user: tokens_of(render_prompt(prompt, tokenizer)) for prompt in prompts}
    prompts = [prompt for prompt in prompts if len(told[prompt.user]) <= config.most_prompt_tokens]
    texts = rl.generate(
        rl.load_lm(f"transformers:{whole}"), prompts, n=1, temperature=1.0, max_tokens=64, seed=config.seed,
        cache=out / "completions.sqlite", progress=progress,
    )  # fmt: skip
    end = int(tokenizer.eos_token_id)
    written = zip(texts.user_U.tolist(), texts.completions_UN, strict=True)
    found = [
        ([*told[user], *tokens_of(one.text), *([end] if one.is_finished else [])], len(told[user]))
        for user, (one,) in written
        if one.text
    ]
    order = np.random.default_rng(config.seed).permutation(len(found)).tolist()
    return [found[place] for place in order]


def general_texts(model: Any, tokenizer: Any, config: SettleConfig, progress: Progress) -> list[list[int]]:
    """What the model without its adapter goes on writing from one English word each."""
    import torch

    words = english_words()
    rng = np.random.default_rng(config.seed)
    openings = [words[int(rng.integers(len(words)))].capitalize() for _ in range(config.general)]
    tokenizer.padding_side = "left"
    texts: list[list[int]] = []
    with progress.stage("general texts", total=config.general, unit="texts") as advance:
        for first in range(0, config.general, AT_ONCE):
            batch = tokenizer(openings[first : first + AT_ONCE], return_tensors="pt", padding=True, verbose=False)
            with torch.no_grad(), model.disable_adapter():
                found = model.generate(**batch, do_sample=True, temperature=1.0, max_new_tokens=config.general_tokens)
            for row, mask in zip(found.tolist(), batch["attention_mask"].tolist(), strict=True):
                written = row[mask.index(1) :]
                new = range(len(mask) - mask.index(1), len(written))
                ends = [place for place in new if written[place] == tokenizer.eos_token_id]
                texts.append(written[: ends[0]] if ends else written)
            advance(len(found))
    return texts


def _kept(file: Path, make: Any) -> Any:
    """What is in the file, or what is made now and written there."""
    if not file.exists():
        file.write_text(json.dumps(make()), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    about = (__doc__ or "").partition(": ")[2].partition("\n")[0]
    return settings_command("python -m scripts.teach_lm.settle", about, _load, "runs/settled", argv)


def _load() -> Any:
    return SettleConfig, settle


if __name__ == "__main__":
    sys.exit(main())
