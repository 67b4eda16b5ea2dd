"""`python -m scripts.teach_lm.own_texts`: Lessons from a model's own texts: well formed and true ones are preferred.

    python -m scripts.teach_lm.own_texts --lessons runs/teach/adapter --out runs/own-texts

A taught model repeats a section now and then, or goes on after its end; lessons seldom tell it not to. Here it writes
several texts about each of many invented histories, and several replies about the next item of invented sessions. DPO
prefers the best to the worst: of texts by their form and by the share of their claims that the history supports, of
replies by whether they name a candidate, and the right one. The next round begins with what the model then writes.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

import recloop as rl
from recloop.llm.smollm2 import LESSONS, base_folder, merge_adapter
from recloop.progress import SILENT, Progress
from recloop.prompts import next_item
from recloop.prompts.claims import TITLE, HistoryItem, Polarity, parse_claims, true_claims
from recloop.prompts.reflection import write_hint
from recloop.prompts.template import SYSTEM, ProfileFacts, open_template
from recloop.prompts.user_profile import count_lines, shown_item
from recloop.records import Completion, Prompt, Rewards
from scripts.pretrain_lm.corpus import NOUNS, invent_history
from scripts.pretrain_lm.skills import SessionTask, invent_session
from scripts.pretrain_lm.summaries import MAX_COUNTED
from scripts.pretrain_lm.tokenizer import english_words
from scripts.settings_command import settings_command
from scripts.teach_lm.teach import CatalogueWords

History = tuple[tuple[str, ...], list[HistoryItem]]
ENOUGH = 4  # claims of a text, where the history supports as many
NAMED, RIGHT = 0.6, 0.4  # of a reply that names a candidate, and of one that names the right one
FEWEST_CANDIDATES, MOST_CANDIDATES = 8, 20
HINTED = 0.4  # share of sessions whose question has the right hint


class OwnTextsConfig(BaseModel):
    """Whose texts, about how many histories, and how they teach."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lessons: Path = Field(default=LESSONS, description="folder of the adapter that goes on learning")
    seed: int = Field(default=28, ge=0, description="of histories and texts")
    rounds: int = Field(default=1, ge=1, description="texts and training, one after another")
    histories: int = Field(default=220, ge=1, description="invented ones of a round")
    sessions: int = Field(default=0, ge=0, description="invented ones of a round, whose next item is asked for")
    texts: int = Field(default=8, ge=2, description="about each history and each session")
    max_tokens: int = Field(default=64, ge=8, description="of a text")
    bare_share: float = Field(default=0.35, ge=0, le=1, description="histories whose items have titles alone")
    short_share: float = Field(default=0.4, ge=0, le=1, description="histories of one to six items")
    news_share: float = Field(
        default=0.0, ge=0, le=1, description="titles like those of news, of items with titles alone"
    )
    counted_share: float = Field(default=0.8, ge=0, le=1, description="histories whose prompt has count lines")
    max_items: int = Field(default=20, ge=7, description="of the other histories")
    min_gap: float = Field(default=0.25, ge=0, description="of two rewards, to be a pair")
    learning_rate: float = Field(default=1e-4, gt=0, description="of DPO")
    beta: float = Field(default=0.1, gt=0, description="of DPO")
    sft_weight: float = Field(default=0.3, ge=0, description="of the better text's likelihood")


class NewsWords(CatalogueWords):
    """Words for catalogues of which a share of the titles is like those of news."""

    news_share = 0.0

    def title(self) -> str:
        return self.news_title() if self._rng.random() < self.news_share else super().title()


def invented_prompt(number: int, config: OwnTextsConfig, round_: int) -> tuple[Prompt, History]:
    """What is asked about one invented history, and the history."""
    rng = np.random.default_rng([config.seed, round_, number, 2])
    is_bare, is_short = rng.random() < config.bare_share, rng.random() < config.short_share
    words = NewsWords(english_words(), rng)
    words.news_share = config.news_share if is_bare else 0.0
    fewest, most = (1, 6) if is_short else (6, config.max_items)
    attributes, items = invent_history(words, int(rng.integers(fewest, most + 1)), rng, fewest, not is_bare)
    counts = [] if is_bare or rng.random() >= config.counted_share else count_lines(attributes, items, MAX_COUNTED)
    lines = tuple(shown_item(attributes, item) for item in items)
    rated = [item.rating for item in items if item.rating is not None]
    mean = sum(rated) / len(rated) if rated else None
    noun = NOUNS[int(rng.integers(len(NOUNS)))]
    facts = ProfileFacts(noun, tuple(attributes), lines, lines, mean, tuple(counts))
    return Prompt(number, SYSTEM, open_template("counted")(facts).user, len(items), 0), (tuple(attributes), items)


def reward_of(completion: Completion, history: History) -> float:
    """0 for a text out of form or cut; else the share of true claims, and .2 for as many as the history supports."""
    attributes, items = history
    parsed = parse_claims(completion.text, attributes)
    if not (parsed.is_well_formed and completion.is_finished):
        return 0.0
    truths = {claim for claim, _ in true_claims(attributes, items)}
    if not parsed.claims:
        return 0.2 if truths else 1.2
    named = {(a, v) for item in items for a, values in zip(attributes, item.values, strict=True) for v in values}
    named |= {(TITLE, item.title) for item in items} if not attributes else set()
    held = [
        claim in truths or (claim.polarity is Polarity.ALSO and (claim.attribute, claim.value) in named)
        for claim in parsed.claims
    ]
    enough = min(ENOUGH, len(truths))
    return float(np.mean(held)) + 0.2 * min(1.0, sum(held) / max(1, enough))


def invented_session(number: int, config: OwnTextsConfig, round_: int) -> tuple[Prompt, SessionTask]:
    """The question for the next item of one invented session, and the session with its right answer."""
    rng = np.random.default_rng([config.seed, round_, number, 3])
    num_candidates = int(rng.integers(FEWEST_CANDIDATES, MOST_CANDIDATES + 1))
    task = invent_session(CatalogueWords(english_words(), rng), num_candidates, rng)
    hint = write_hint(task.hidden) if rng.random() < HINTED else ""
    text = next_item.next_item_text(task.session, hint, 1)
    return Prompt(config.histories + number, next_item.SYSTEM, text, len(task.session.shown), 0), task


def reward_of_reply(completion: Completion, task: SessionTask) -> float:
    """0 for a reply that was cut or names no candidate, `NAMED` for a wrong one, 1 for the right one."""
    titles = [item.title for item in task.session.candidates]
    places = next_item.parse_ranking(completion.text, titles, 1).places if completion.is_finished else ()
    return NAMED + RIGHT * (places[0] == task.answer) if places else 0.0


def teach_by_own_texts(config: OwnTextsConfig, out: Path, progress: Progress = SILENT) -> str:
    """What each round's texts were like; the adapter is in ``OUT/adapter``."""
    out.mkdir(parents=True, exist_ok=True)
    adapter, told = _on_this_machine(config.lessons, out / "start"), list[str]()
    for round_ in range(config.rounds):
        asked: list[tuple[Prompt, Callable[[Completion], float]]] = [
            (prompt, partial(reward_of, history=history))
            for prompt, history in (invented_prompt(number, config, round_) for number in range(config.histories))
        ]
        asked += [
            (prompt, partial(reward_of_reply, task=task))
            for prompt, task in (invented_session(number, config, round_) for number in range(config.sessions))
        ]
        whole = out / f"whole.{round_}"
        if not whole.exists():
            merge_adapter(base_folder(), adapter, whole)
        texts = rl.generate(
            rl.load_lm(f"transformers:{whole}"), [prompt for prompt, _ in asked], n=config.texts, temperature=1.0,
            max_tokens=config.max_tokens, seed=config.seed, cache=out / "completions.sqlite", progress=progress,
        )  # fmt: skip
        rewards_UN = np.array(
            [
                [reward(one) for one in completions_N]
                for completions_N, (_, reward) in zip(texts.completions_UN, asked, strict=True)
            ],
            dtype=np.float32,
        )
        pairs = rl.preference_pairs(
            texts, Rewards(round_, "form and truth", texts.user_U, rewards_UN), min_gap=config.min_gap
        )
        parts = {"texts": rewards_UN[: config.histories], "replies": rewards_UN[config.histories :]}
        shares = [
            f"{name} with a reward {np.mean(part > 0):.1%}, on average {part.mean():.3f}"
            for name, part in parts.items()
            if part.size
        ]
        told.append(f"round {round_}: {'; '.join(shares)}; {len(pairs.pairs)} pairs")
        progress.say(told[-1])
        trained = rl.train_dpo(
            adapter, pairs, out=out / f"round.{round_}", seed=config.seed, progress=progress, lora=True,
            learning_rate=config.learning_rate, beta=config.beta, sft_weight=config.sft_weight, max_prompt_tokens=1400,
            batch_size=2,
        )  # fmt: skip
        adapter = trained.folder
    export(adapter, out / "adapter")
    return "\n".join(told)


def _on_this_machine(lessons: Path, folder: Path) -> Path:
    """A copy of the adapter that says where its base is here, with the base's tokenizer."""
    if not folder.exists():
        shutil.copytree(base_folder(), folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(lessons / file, folder / file)
        told = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        told["base_model_name_or_path"] = str(base_folder().resolve())
        (folder / "adapter_config.json").write_text(json.dumps(told, indent=2), encoding="utf-8")
    return folder


def export(adapter: Path, folder: Path) -> None:
    """The adapter in half precision."""
    from safetensors.torch import load_file, save_file

    folder.mkdir(exist_ok=True)
    shutil.copy(adapter / "adapter_config.json", folder)
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: value.half() for name, value in weights.items()}, folder / "adapter_model.safetensors")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    about = (__doc__ or "").partition(": ")[2].partition("\n")[0]
    return settings_command("python -m scripts.teach_lm.own_texts", about, _load, "runs/own-texts", argv)


def _load() -> Any:
    return OwnTextsConfig, teach_by_own_texts


if __name__ == "__main__":
    sys.exit(main())
