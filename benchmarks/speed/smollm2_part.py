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
LLAMA_PYTHON = "RECLOOP_LLAMA_PYTHON"  # a Python that has xllamacpp, which is llama.cpp with its server
LLAMA_MODELS = "RECLOOP_LLAMA_MODELS"  # .gguf files of the model, separated by colons
PORT = 8731
SERVE = f"""
import sys, time, xllamacpp
asked = xllamacpp.CommonParams()
asked.model.path, asked.hostnames, asked.port = sys.argv[1], ["127.0.0.1"], {PORT}
asked.n_parallel, asked.n_ctx, asked.kv_unified = {NUM_COMPLETIONS}, 2048 * {NUM_COMPLETIONS}, True
asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = int(sys.argv[2])
server = xllamacpp.Server(asked)
time.sleep(1e6)
"""


def measure(bench: Bench) -> Findings:
    """The same prompts with the same temperature and longest completion; the same pairs in the same order."""
    folder = base_folder()
    lm, plain = TransformersLM(folder, device="cpu"), PlainGenerate(folder)
    prompts = simulated_prompts(lm, bench.amount(NUM_PROMPTS, 1))
    sampling = Sampling(NUM_COMPLETIONS, 1.0, 1.0, MAX_TOKENS, 0)
    models = [Path(model) for model in os.environ.get(LLAMA_MODELS, "").split(":") if model]
    with bench.progress.stage("smollm2", (3 + len(models)) * bench.repetitions, "repetitions") as step:
        figures = [_against_generate(lm, plain, prompts, sampling, bench, step)]
        figures += [_against_llama_cpp(lm, model, prompts, sampling, bench, step) for model in models]
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
    lm: TransformersLM, model: Path, prompts: list[Prompt], sampling: Sampling, bench: Bench, step: Any
) -> Figure:
    """llama.cpp's server at the same prompts, ten completions a request, which it computes together."""
    import httpx2

    texts = [lm.render(prompt) for prompt in prompts]
    with _llama_server(model, bench.threads) as address, httpx2.Client(timeout=600) as client:

        def ask() -> list[str]:
            body = {"n": NUM_COMPLETIONS, "max_tokens": MAX_TOKENS, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
            written: list[str] = []
            for text in texts:
                answer = client.post(f"{address}/v1/completions", json={"prompt": text, "min_p": 0.0, **body}).json()
                written += [choice["text"] for choice in answer["choices"]]
            return written

        found = race(
            ("TransformersLM.generate, float32", 1, lambda: dict(lm.generate(prompts, sampling))),
            (f"llama.cpp's server, {model.stem}", 1, ask),
            bench.repetitions,
            step,
        )
    tokens = sum(one.num_tokens for completions_N in found.our_result.values() for one in completions_N)
    their_tokens = sum(min(MAX_TOKENS, lm.count_tokens(text) + 1) for text in found.their_result)
    return Figure(
        name=f"{NUM_COMPLETIONS} completions per prompt, SmolLM2-135M",
        unit="tokens",
        ours=found.ours.model_copy(update={"amount": float(tokens)}),
        against=found.against.model_copy(update={"amount": float(their_tokens)}),
        notes=("it keeps the prompt in its cache between repetitions; its weights have fewer bits than ours",),
    )


@contextmanager
def _llama_server(model: Path, threads: int) -> Generator[str]:
    """Its address while it runs."""
    import httpx2

    command = [os.environ[LLAMA_PYTHON], "-c", SERVE, str(model), str(threads)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{PORT}"
    try:
        for _ in range(240):
            try:
                if httpx2.get(f"{address}/health").status_code == 200:
                    break
            except httpx2.HTTPError:
                pass
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
