"""A model that others made, SmolLM2-135M-Instruct: ten completions per prompt and DPO steps, against usual ways."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.speed.bench import Bench
from benchmarks.speed.dpo_part import LEARNING_RATE, Models, count_tokens, make_pairs, our_losses, trl_losses
from benchmarks.speed.figures import Check, Figure, Findings
from benchmarks.speed.measuring import profile, race
from benchmarks.speed.sampling_part import PlainGenerate, logit_gap, simulated_prompts
from recloop.llm.language_model import Sampling
from recloop.llm.local import TransformersLM
from recloop.llm.smollm2 import base_folder, taught_folder
from recloop.records import Completion, Prompt
from recloop.training.dpo import DpoConfig

if TYPE_CHECKING:
    from collections.abc import Generator

NUM_PROMPTS, NUM_COMPLETIONS, MAX_TOKENS, NUM_PAIRS = 3, 10, 48, 8
ALLOWED_LOGIT, ALLOWED_LOSS = 1e-3, 1e-3
LLAMA_PYTHON, LLAMA_MODEL = "RECLOOP_LLAMA_PYTHON", "RECLOOP_LLAMA_MODEL"  # a Python with llama_cpp, and its .gguf
PORT = 8731


def measure(bench: Bench) -> Findings:
    """The same prompts with the same temperature and longest completion; the same pairs in the same order."""
    folder = base_folder()
    lm, plain = TransformersLM(folder, device="cpu"), PlainGenerate(folder)
    prompts = simulated_prompts(lm, bench.amount(NUM_PROMPTS, 1))
    sampling = Sampling(NUM_COMPLETIONS, 1.0, 1.0, MAX_TOKENS, 0)
    with bench.progress.stage("smollm2", 4 * bench.repetitions, "repetitions") as step:
        figures = [_against_generate(lm, plain, prompts, sampling, bench, step)]
        if LLAMA_PYTHON in os.environ:
            figures.append(_against_llama_cpp(lm, prompts, sampling, bench, step))
        figures += _against_trl(lm, bench, step)
    return Findings(
        figures=tuple(figures),
        profiles=(profile("ten completions per prompt", lambda: list(lm.generate(prompts[:1], sampling))),),
        bound=(
            "135M parameters are read for every token of ten completions together. A prompt of 400 tokens is read once "
            "for all ten; `generate` reads it ten times, and once per batch."
        ),
    )


def _against_generate(
    lm: TransformersLM, plain: PlainGenerate, prompts: list[Prompt], sampling: Sampling, bench: Bench, step: Any
) -> Figure:
    texts = [lm.render(prompt) for prompt in prompts]
    found = race(
        ("TransformersLM.generate", 1, lambda: dict(lm.generate(prompts, sampling))),
        ("transformers generate, a prompt a call", 1, lambda: _one_by_one(plain, texts)),
        bench.repetitions,
        step,
    )
    completions: dict[int, tuple[Completion, ...]] = found.our_result
    tokens = [one.num_tokens for completions_N in completions.values() for one in completions_N]
    figure = Figure(
        name=f"{NUM_COMPLETIONS} completions per prompt, SmolLM2-135M",
        unit="tokens",
        ours=found.ours.model_copy(update={"amount": float(sum(tokens))}),
        against=found.against.model_copy(update={"amount": float(sum(found.their_result))}),
        checks=(
            Check(what="largest difference of a logit", value=logit_gap(plain, texts, completions), most=ALLOWED_LOGIT),
        ),
        notes=(f"{len(prompts)} prompts of up to {max(map(lm.count_tokens, texts))} tokens",),
    )
    return figure.with_ratio_target(3.0)


def _one_by_one(plain: PlainGenerate, texts: Sequence[str]) -> list[int]:
    """The tokens of each completion, as users call `generate`: prompt by prompt."""
    return [count for text in texts for count in plain([text], NUM_COMPLETIONS, MAX_TOKENS)]


def _against_llama_cpp(
    lm: TransformersLM, prompts: list[Prompt], sampling: Sampling, bench: Bench, step: Any
) -> Figure:
    """llama.cpp's server at the same prompts, a request a completion, as its API has it."""
    import httpx2

    texts = [lm.render(prompt) for prompt in prompts]
    with _llama_server() as address, httpx2.Client(timeout=600) as client:

        def ask() -> int:
            num_tokens = 0
            for text in texts:
                for number in range(NUM_COMPLETIONS):
                    body = {"prompt": text, "max_tokens": MAX_TOKENS, "temperature": 1.0, "top_p": 1.0, "seed": number}
                    answer = client.post(f"{address}/v1/completions", json=body).json()
                    num_tokens += int(answer["usage"]["completion_tokens"])
            return num_tokens

        found = race(
            ("TransformersLM.generate", 1, lambda: dict(lm.generate(prompts, sampling))),
            (f"llama.cpp's server, {Path(os.environ[LLAMA_MODEL]).stem}", 1, ask),
            bench.repetitions,
            step,
        )
    tokens = sum(one.num_tokens for completions_N in found.our_result.values() for one in completions_N)
    return Figure(
        name=f"{NUM_COMPLETIONS} completions per prompt, SmolLM2-135M",
        unit="tokens",
        ours=found.ours.model_copy(update={"amount": float(tokens)}),
        against=found.against.model_copy(update={"amount": float(found.their_result)}),
        notes=("it keeps the prompt in its cache between requests; the weights have fewer bits",),
    )


@contextmanager
def _llama_server() -> Generator[str]:
    import httpx2

    command = [os.environ[LLAMA_PYTHON], "-m", "llama_cpp.server", "--model", os.environ[LLAMA_MODEL]]
    command += ["--port", str(PORT), "--n_threads", "1", "--n_ctx", "2048"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{PORT}"
    try:
        for _ in range(240):
            try:
                httpx2.get(f"{address}/v1/models")
                break
            except httpx2.HTTPError:
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait()


def _against_trl(lm: TransformersLM, bench: Bench, step: Any) -> list[Figure]:
    prompts, pairs = make_pairs(lm, bench.amount(NUM_PAIRS, 4))
    config = DpoConfig(learning_rate=LEARNING_RATE, batch_size=2, gradient_accumulation_steps=2, lora=False)
    models, folder = Models(base_folder(), taught_folder()), bench.scratch / "trained"
    num_tokens = count_tokens(prompts, pairs, config, lm)
    figures: list[Figure] = []
    for name, checkpointing in (("TRL's DPOTrainer, its defaults", None), ("its activations kept", False)):
        found = race(
            ("run_dpo", num_tokens, lambda: our_losses(prompts, pairs, config, folder, models)),
            (name, num_tokens, lambda c=checkpointing: trl_losses(prompts, pairs, config, folder, c, models)),
            bench.repetitions,
            step,
        )
        gap = float(np.abs(np.divide(found.our_result, found.their_result) - 1).max())
        check = Check(what="largest share by which a step's loss differs", value=gap, most=ALLOWED_LOSS)
        figure = Figure(
            name="DPO, SmolLM2-135M", unit="tokens", ours=found.ours, against=found.against, checks=(check,)
        )
        figures.append(figure.with_ratio_target(1.5))
    return figures
