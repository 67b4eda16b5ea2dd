"""What a language model can still do after a training: general text, and ten instructions that a rule can check.

    python -m scripts.evaluate_lm.general smollm2:base smollm2

The text is the descriptions of data sets that scikit-learn ships, read in windows. Answers are greedy.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from recloop.llm.language_model import LanguageModel, Sampling
from recloop.llm.load import load_lm, local_folder
from recloop.llm.weights import base_folder_of
from recloop.records import Prompt

TEXTS = ("california_housing", "diabetes", "digits", "kddcup99", "olivetti_faces", "twenty_newsgroups", "wine_data")
WINDOW = 512  # tokens that are read together; the first one is not predicted
MAX_TOKENS = 60
CHECKS = (  # the model as it came passes all of them
    ("What is the capital of France?", r"\bParis\b"),
    ("What is 2 + 3?", r"\b(?:5|five)\b"),
    ("What colour is the sky on a clear day?", r"(?i)\bblue\b"),
    ("Write one sentence about the sea.", r"(?i)\b(?:sea|ocean)\b.*[.!]"),
    ("What is the capital of Japan?", r"\bTokyo\b"),
    ("What is the opposite of hot?", r"(?i)\bcold\b"),
    ("What language is spoken in Brazil?", r"\bPortuguese\b"),
    ("What is the largest ocean on Earth?", r"\bPacific\b"),
    ("In which month is Christmas?", r"\bDecember\b"),
    ("Explain in one sentence what a library is.", r"(?i)\b(?:books?|knowledge|information)\b"),
)


def general_text() -> str:
    """The fixed text."""
    folder = files("sklearn.datasets").joinpath("descr")
    parts = (folder.joinpath(f"{name}.rst").read_text(encoding="utf-8") for name in TEXTS)
    return "\n\n".join(re.sub(r"\s+", " ", part) for part in parts)


def perplexity(model: Any, tokenizer: Any, text: str) -> float:
    """The perplexity of a text, window by window."""
    import torch

    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    total, count = 0.0, 0
    for first in range(0, len(ids) - 1, WINDOW):
        window = torch.tensor([ids[first : first + WINDOW]])
        if window.shape[1] > 1:
            with torch.no_grad():
                logits = model(input_ids=window).logits[0, :-1].float()
            total += torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum").item()
            count += window.shape[1] - 1
    return math.exp(total / count)


def checks_passed(lm: LanguageModel) -> list[tuple[str, str, bool]]:
    """Each instruction, what was answered, and whether the rule holds."""
    prompts = [Prompt(number, "", text, 0, 0) for number, (text, _) in enumerate(CHECKS)]
    sampling = Sampling(num_completions=1, temperature=0.01, top_p=1.0, max_tokens=MAX_TOKENS, seed=0)
    answers = {number: written[0].text for number, written in lm.generate(prompts, sampling)}
    return [
        (text, answers[number], re.search(rule, answers[number]) is not None)
        for number, (text, rule) in enumerate(CHECKS)
    ]


def main(names: Sequence[str]) -> int:
    """Measure each language model that is named."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name in names:
        folder = local_folder(name)
        is_adapter = (folder / "adapter_config.json").is_file()
        model = (AutoPeftModelForCausalLM if is_adapter else AutoModelForCausalLM).from_pretrained(folder)
        value = perplexity(model, AutoTokenizer.from_pretrained(base_folder_of(folder)), general_text())
        found = checks_passed(load_lm(name))
        print(f"{name}: perplexity {value:.2f}, instructions {sum(passed for *_, passed in found)} of {len(found)}")
        for text, answer, passed in found:
            print(f"  {'yes' if passed else 'no '} {text} {answer!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
