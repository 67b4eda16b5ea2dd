"""What keeps a model's other abilities while it is taught: texts of its own, on which it is held to what it was.

Before the lessons the model answers everyday instructions and goes on with openings of texts. While it learns, some of
these are read in every step, and the divergence of its predictions from those it had before is part of the loss.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MAX_TOKENS = 72  # of a text of its own
INSTRUCTIONS = (
    "What is the capital of Spain?", "What is the capital of Canada?", "What is 7 + 1?", "What is 20 minus 5?",
    "What colour is grass?", "What colour is snow?", "Write one sentence about a mountain.", "What do hens lay?",
    "Write two sentences about winter.", "List four animals.", "List three cities in Europe.",
    "Name a musical instrument.",
    "What is the largest planet?", "Who wrote Hamlet?", "Who painted Guernica?", "Give a synonym of large.",
    "What is the opposite of early?", "What is the plural of child?", "In which month does summer begin in Europe?",
    "How many months are in a year?", "How many minutes are in an hour?", "Is fire hot? Answer yes or no.",
    "Is the moon larger than the earth? Answer yes or no.", "Write the word river in capital letters.",
    "Complete the sentence: Birds can", "Complete the sentence: In the morning I drink", "What is a museum?",
    "Explain in one sentence what rain is.", "Explain in two sentences how a bicycle works.", "What is bread made of?",
    "Write a greeting for a birthday.", "Write a short email that asks for a day off.", "Apologise for being late.",
    "Thank a neighbour for watering the plants.", "Give me three tips for a job interview.", "What is photosynthesis?",
    "Write a short poem about a tree.", "Tell me a fact about whales.", "What is a computer program?",
    "Translate 'good morning' into Spanish.", "How do I boil an egg?", "What should I pack for a trip to the beach?",
    "Summarise in one sentence: The train was late because of snow, so we missed the meeting.",
    "Correct the sentence: She go to school every day.", "What is the past tense of run?",
    "Why do leaves fall in autumn?",
    "What language is spoken in Germany?", "What is the currency of Japan?", "Who was Albert Einstein?",
    "What is a good name for a dog?", "Describe the taste of a lemon.",
    "What is the difference between a lake and a river?",
)  # fmt: skip
OPENINGS = (
    "The history of", "In recent years,", "The data set", "A number of studies have", "The following table", "When the",
    "It is well known that", "This method", "The first", "People who", "The city of", "According to", "To compute the",
    "There are several", "One of the", "After the war", "The results", "Water is", "Students", "The company announced",
    "Each row of", "The values of", "An important part of", "The authors", "Most of the", "In this chapter",
    "The theory of",
    "Measurements were", "Scientists have", "The book",
)  # fmt: skip


class Replay:
    """Texts of the model's own, and its divergence on them from what it was."""

    def __init__(self, texts: list[list[int]], pad: int) -> None:
        self._texts, self._pad = texts, pad

    @classmethod
    def of(cls, model: Any, tokenizer: Any, file: Path) -> Replay:
        """Those in the file, or new ones by the model without its adapter."""
        if not file.exists():
            file.write_text(json.dumps(own_texts(model, tokenizer)), encoding="utf-8")
        return cls(json.loads(file.read_text(encoding="utf-8")), int(tokenizer.eos_token_id))

    def loss(self, model: Any, step: int, count: int) -> torch.Tensor:
        """The divergence of the base's predictions from the model's, mean per token, on `count` texts in turn."""
        import torch

        texts = [self._texts[(step * count + number) % len(self._texts)] for number in range(count)]
        length = max(map(len, texts))
        ids_BT = torch.tensor([[*text, *[self._pad] * (length - len(text))] for text in texts])
        is_read_BT = torch.tensor([[place < len(text) for place in range(length)] for text in texts])
        with torch.no_grad(), model.disable_adapter():
            before_BTV = model(input_ids=ids_BT, attention_mask=is_read_BT.long()).logits.log_softmax(-1)
        after_BTV = model(input_ids=ids_BT, attention_mask=is_read_BT.long()).logits.log_softmax(-1)
        divergence_BT = (before_BTV.exp() * (before_BTV - after_BTV)).sum(-1)
        return divergence_BT[is_read_BT].mean()


def own_texts(model: Any, tokenizer: Any) -> list[list[int]]:
    """Token ids of answers to the instructions and of what follows the openings, sampled without the adapter."""
    import torch

    chats = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False)
        for text in INSTRUCTIONS
    ]
    texts: list[list[int]] = []
    tokenizer.padding_side = "left"
    for asked in (chats, list(OPENINGS)):
        batch = tokenizer(asked, return_tensors="pt", padding=True, add_special_tokens=False, verbose=False)
        with torch.no_grad(), model.disable_adapter():
            found = model.generate(**batch, do_sample=True, temperature=0.8, max_new_tokens=MAX_TOKENS)
        for row, mask in zip(found.tolist(), batch["attention_mask"].tolist(), strict=True):
            start = mask.index(1)
            new = row[len(mask) :]
            end = new.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in new else len(new)
            texts.append(row[start : len(mask) + end])
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    return [texts[place] for place in order]
