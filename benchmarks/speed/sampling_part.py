"""Ten completions per prompt from the bundled language model, against transformers' own `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.bench import Bench
from benchmarks.speed.figures import Check, Figure, Findings, Growth, Line
from benchmarks.speed.measuring import profile, race, timed
from recloop.data.lists import ProtocolConfig, build_lists
from recloop.data.simulated import SimulatedConfig, simulate_log
from recloop.data.simulated_sessions import SimulatedSessionsConfig, simulate_sessions
from recloop.llm.bundled import bundled_lm_folder
from recloop.llm.language_model import Sampling
from recloop.llm.local import TransformersLM
from recloop.llm.weights import reading
from recloop.methods.re2llm.config import Re2llmConfig
from recloop.methods.re2llm.data import clean_items, session_texts
from recloop.prompts.next_item import SYSTEM, next_item_text
from recloop.prompts.reflection import write_hint
from recloop.prompts.user_profile import PromptConfig, profile_writer
from recloop.records import Completion, Prompt

NUM_PROMPTS, NUM_COMPLETIONS, MAX_TOKENS = 16, 10, 64
NUM_SESSIONS, NUM_HINTS = 4, 20
ALLOWED = 1e-4
WANTED_RATIO = 3.0


def measure(bench: Bench) -> Findings:
    """Time the same prompts in one batch, with the same temperature and the same longest completion."""
    lm = TransformersLM(bundled_lm_folder(), device="cpu")
    plain = PlainGenerate()
    prompts = simulated_prompts(lm, bench.amount(NUM_PROMPTS, 2))
    sampling = Sampling(num_completions=NUM_COMPLETIONS, temperature=1.0, top_p=1.0, max_tokens=MAX_TOKENS, seed=0)
    list(lm.generate(prompts[:1], sampling))
    with bench.progress.stage("sampling", 3 * bench.repetitions, "repetitions") as step:
        figure = _figure(lm, plain, prompts, sampling, bench, step)
        hints = _hints_figure(bench, step)
        growth = _growth(lm, plain, prompts[: max(2, len(prompts) // 2)])
        step(bench.repetitions)
    return Findings(
        figures=(figure, hints),
        growths=(growth,),
        profiles=(profile("ten completions per prompt", lambda: list(lm.generate(prompts, sampling))),),
        bound=(
            "Each new token of 160 completions costs a forward pass whose matrix products are too small to fill the "
            "processor, a product with the output embedding (8,192 tokens) and a draw from its softmax. A shared "
            "prefix saves reading and storing the prompt ten times. Drawing by the inverse of the cumulative "
            "distribution saves the usual sort of nucleus sampling. Prompts with the same beginning, such as a "
            "session with every hint, share it too."
        ),
    )


class PlainGenerate:
    """transformers' `generate` with `num_return_sequences`; prompts are padded to the left."""

    def __init__(self, folder: Path | None = None) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = folder or bundled_lm_folder()
        with reading(folder, "causal LM"):
            # As recloop loads it; transformers uses the precision in which the weights are stored.
            self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")

    def __call__(self, texts: Sequence[str], num_completions: int, max_tokens: int) -> list[int]:
        """The number of tokens of each completion, its end token included."""
        import torch

        new_RT = self._new_tokens(
            texts,
            max_tokens,
            do_sample=True,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            num_return_sequences=num_completions,
        )
        is_end_RT = new_RT == self.tokenizer.eos_token_id
        before_R = (is_end_RT.cumsum(dim=1) == 0).sum(dim=1)
        return torch.clamp(before_R + 1, max=new_RT.shape[1]).tolist()

    def greedy(self, texts: Sequence[str], max_tokens: int) -> list[str]:
        """The greedy answers."""
        new_RT = self._new_tokens(texts, max_tokens, do_sample=False)
        return [text.strip() for text in self.tokenizer.batch_decode(new_RT, skip_special_tokens=True)]

    def _new_tokens(self, texts: Sequence[str], max_tokens: int, **how: Any) -> Any:
        import torch

        batch = self.tokenizer(list(texts), return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            ids_RT = self.model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=max_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
                **how,
            )
        return ids_RT[:, batch["input_ids"].shape[1] :]


def simulated_prompts(lm: TransformersLM, num: int) -> list[Prompt]:
    """Prompts about users of a simulated log, in the default template."""
    dataset, _ = simulate_log(SimulatedConfig(num_users=max(num, 50)), seed=0)
    histories = build_lists(dataset, {}, ProtocolConfig(), seed=0).histories
    write = profile_writer(dataset, PromptConfig(), lm)
    return [write(user, *histories.of(user)) for user in range(num)]


def _figure(
    lm: TransformersLM,
    plain: PlainGenerate,
    prompts: list[Prompt],
    sampling: Sampling,
    bench: Bench,
    step: Any,
) -> Figure:
    import torch

    texts = [lm.render(prompt) for prompt in prompts]
    torch.manual_seed(0)
    # How long completions are is only known afterwards.
    found = race(
        ("TransformersLM.generate", 1, lambda: dict(lm.generate(prompts, sampling))),
        ("transformers generate", 1, lambda: plain(texts, NUM_COMPLETIONS, MAX_TOKENS)),
        bench.repetitions,
        step,
    )
    completions: dict[int, tuple[Completion, ...]] = found.our_result
    tokens = [completion.num_tokens for completions_N in completions.values() for completion in completions_N]
    their_tokens: list[int] = found.their_result
    gap, error = logit_gap(plain, texts, completions), np.std(tokens) / len(tokens) ** 0.5
    figure = Figure(
        name=f"{NUM_COMPLETIONS} completions per prompt",
        unit="tokens",
        ours=found.ours.model_copy(update={"amount": float(sum(tokens))}),
        against=found.against.model_copy(update={"amount": float(sum(their_tokens))}),
        checks=(Check(what="largest difference of a logit", value=gap, most=ALLOWED),),
        notes=(
            f"{len(prompts)} prompts of up to {max(map(lm.count_tokens, texts))} tokens",
            (
                f"completions of {np.mean(tokens):.1f} tokens (standard error {error:.1f}), generate's "
                f"{np.mean(their_tokens):.1f}; tokens after the end are not counted"
            ),
        ),
    )
    return figure.with_ratio_target(WANTED_RATIO)


def _hints_figure(bench: Bench, step: Any) -> Figure:
    """Greedy answers to sessions of twenty candidates, each without a hint and with twenty hints."""
    folder = bundled_lm_folder("answers")
    lm, plain = TransformersLM(folder, device="cpu"), PlainGenerate(folder)
    prompts = session_prompts(bench.amount(NUM_SESSIONS, 1), bench.amount(NUM_HINTS, 2))
    sampling = Sampling(num_completions=1, temperature=0.0, top_p=1.0, max_tokens=MAX_TOKENS, seed=0)
    texts = [lm.render(prompt) for prompt in prompts]
    found = race(
        ("TransformersLM.generate", len(prompts), lambda: dict(lm.generate(prompts, sampling))),
        ("transformers generate", len(prompts), lambda: plain.greedy(texts, MAX_TOKENS)),
        bench.repetitions,
        step,
    )
    completions: dict[int, tuple[Completion, ...]] = found.our_result
    answers: list[str] = found.their_result
    differ = [completions[n][0].text != answer for n, answer in enumerate(answers)]
    return Figure(
        name="a session with every hint",
        unit="answers",
        ours=found.ours,
        against=found.against,
        checks=(Check(what="share of answers that differ", value=float(np.mean(differ)), most=0.02),),
        notes=(
            f"{len(prompts)} prompts of up to {max(map(lm.count_tokens, texts))} tokens",
            f"{bench.amount(NUM_SESSIONS, 1)} shared beginnings are read once; the alternative reads one batch of all",
        ),
    )


def session_prompts(num_sessions: int, num_hints: int) -> list[Prompt]:
    """Simulated sessions, each without a hint and with `num_hints`; session s has users 1000 s and up."""
    simulated = SimulatedSessionsConfig(num_train=num_sessions, num_test=1)
    task = simulate_sessions(simulated, seed=0)
    config = Re2llmConfig()
    shown = session_texts(task, clean_items(task))[:num_sessions]
    attributes = [attribute for attribute in task.attributes for _ in range(num_hints)][:num_hints]
    hints = ["", *(f"{write_hint(attribute)} Rule {n}." for n, attribute in enumerate(attributes))]
    return [
        Prompt(1000 * s + h, SYSTEM, next_item_text(text, hint, config.question.num_ranked), 0, 0)
        for s, text in enumerate(shown)
        for h, hint in enumerate(hints)
    ]


def logit_gap(plain: PlainGenerate, texts: Sequence[str], completions: dict[int, tuple[Completion, ...]]) -> float:
    """Largest difference between our logits of the completions' tokens and those of a plain forward pass.

    The completions are fed to the shared prefix token by token, several prompts and completions at a time.
    """
    import torch

    from recloop.llm.decoding import SharedPrefix

    tokenizer, chosen = plain.tokenizer, range(min(3, len(texts)))
    prompts = [tokenizer(texts[b], add_special_tokens=False)["input_ids"] for b in chosen]
    replies = [[tokenizer(d.text, add_special_tokens=False)["input_ids"] for d in completions[b][:4]] for b in chosen]
    num_tokens = max(1, min(len(reply) for replies_N in replies for reply in replies_N))
    num_completions = len(replies[0])
    prompt_R, completion_R = (axis.ravel() for axis in np.indices((len(prompts), num_completions)))
    gap = 0.0
    with torch.inference_mode():
        prefix = SharedPrefix(plain.model, prompts, num_completions, num_tokens)
        ours_RV = prefix.first_logits().repeat_interleave(num_completions, dim=0)
        for t in range(num_tokens):
            for r, (b, n) in enumerate(zip(prompt_R, completion_R, strict=True)):
                ids = torch.tensor([[*prompts[b], *replies[b][n][:t]]])
                gap = max(gap, float((plain.model(ids).logits[0, -1] - ours_RV[r]).abs().max()))
            if t == min(num_tokens, 12) - 1:
                return gap
            tokens_R = np.array([replies[b][n][t] for b, n in zip(prompt_R, completion_R, strict=True)])
            ours_RV = prefix.next_logits(tokens_R, prompt_R, completion_R)
    return gap


def _growth(lm: TransformersLM, plain: PlainGenerate, prompts: list[Prompt]) -> Growth:
    """Cost of a token by the number of completions, on half the prompts."""
    texts, numbers = [lm.render(prompt) for prompt in prompts], (1, 2, 5, 10, 20)
    ours: list[float] = []
    theirs: list[float] = []
    for num_completions in numbers:
        sampling = Sampling(num_completions=num_completions, temperature=1.0, top_p=1.0, max_tokens=MAX_TOKENS, seed=0)
        wall_s, completions = timed(lambda sampling=sampling: dict(lm.generate(prompts, sampling)))
        tokens = sum(completion.num_tokens for completions_N in completions.values() for completion in completions_N)
        ours.append(1e3 * wall_s / tokens)
        wall_s, counts = timed(lambda num=num_completions: plain(texts, num, MAX_TOKENS))
        theirs.append(1e3 * wall_s / sum(counts))
    xs = tuple(map(float, numbers))
    return Growth(
        title=f"Sampling for {len(prompts)} prompts: cost of a token by completions",
        x_label="completions per prompt (N)",
        y_label="milliseconds per token",
        lines=(
            Line(name="recloop", x=xs, y=tuple(ours)),
            Line(name="transformers generate", x=xs, y=tuple(theirs)),
        ),
    )
