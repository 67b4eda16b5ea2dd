"""Fakes of models, and checks of your own reranker, language model, encoder and reward.

The fakes are deterministic, need no weights and answer at once; recloop's own tests and yours may use them.
Each check raises `ContractError` with the first promise that is broken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

import numpy as np

from recloop.encoders.sentence import TextEncoder, count_cut
from recloop.errors import ContractError
from recloop.llm.language_model import LanguageModel, Sampling, completion_uniforms, prompt_digest
from recloop.prompts.claims import Claim, Polarity, write_summary
from recloop.records import Completion, Group, Histories, Lists, Prompt, UserVectors
from recloop.rerankers.config import RerankerConfig
from recloop.rerankers.features import ItemFeatures
from recloop.rerankers.protocol import Backbone, Reranker
from recloop.rewards.function import RewardFunction, checked_rewards

if TYPE_CHECKING:
    from jaxtyping import Float32

    from recloop.rerankers.train import FitData

HISTORY_LINE = re.compile(r'^(?:([\d.]+) stars \| )?"[^"]*" \| (.+)$', re.MULTILINE)
FAR_APART = 1e-4  # float32 sums in another order differ by less


class FakeLM:
    """Answers an attributed prompt with attribute values that stand in it, one to three claims per completion.

    Reads nothing but the history lines of `recloop.prompts.user_profile`. A value is liked when its item has four
    stars or more (or none are given), disliked otherwise, so a claim can be false of the whole history.

    Args:
        attributes: their names, in the order of the prompt's columns.
        num_attributes_named: attributes a completion speaks of, chosen again for each completion.
    """

    def __init__(
        self, attributes: Sequence[str] = ("era", "genre", "director"), *, num_attributes_named: int = 1
    ) -> None:
        self._attributes, self._num_named = tuple(attributes), num_attributes_named
        self.num_asked = 0  # completions generated so far: shows what a cache spared

    @property
    def name(self) -> str:
        return f"fake-lm-{'-'.join(self._attributes)}-{self._num_named}"

    def count_tokens(self, text: str) -> int:
        return len(re.findall(r"\w+|[^\w\s]", text))

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        for position, prompt in enumerate(prompts):
            completions_N = tuple(self._completion(prompt, sampling, number) for number in sampling.completion_numbers)
            self.num_asked += len(completions_N)
            yield position, completions_N

    def _completion(self, prompt: Prompt, sampling: Sampling, number: int) -> Completion:
        uniforms = completion_uniforms(prompt_digest(prompt), sampling.seed, number, len(self._attributes) + 3)
        if sampling.temperature == 0:
            uniforms = np.zeros_like(uniforms)
        columns = sorted(np.argsort(uniforms[3:], kind="stable")[: self._num_named].tolist())
        lines = HISTORY_LINE.findall(prompt.text)
        claims: dict[Claim, None] = {}
        for uniform in uniforms[:3] if lines else ():
            rating, cells = lines[int(uniform * len(lines))]
            polarity = Polarity.LIKES if not rating or float(rating) >= 4 else Polarity.DISLIKES
            cells_by_attribute = {name: rest for name, _, rest in (c.partition(" ") for c in cells.split(" | "))}
            if not set(cells_by_attribute) <= set(self._attributes):
                raise ContractError(
                    f"FakeLM must know each attribute shown, got {cells!r}; pass the dataset's attributes"
                )
            for column in columns:
                value = cells_by_attribute.get(self._attributes[column], "").split(", ")[0]
                if value:
                    claims[Claim(self._attributes[column], polarity, value)] = None
        words = write_summary(list(claims)).split(" ")
        is_finished = len(words) < sampling.max_tokens
        kept = words[: sampling.max_tokens]
        num_tokens = len(kept) + is_finished
        return Completion(prompt.user, number, " ".join(kept), num_tokens, is_finished, -float(num_tokens))


class FakeEncoder:
    """A bag of words: each word adds 1 at a place its hash decides; length 1, or 0 without words.

    Args:
        width: D.
        max_words: words after these are not read.
    """

    def __init__(self, width: int = 64, *, max_words: int = 256) -> None:
        self.width, self._max_words = width, max_words

    @property
    def name(self) -> str:
        return f"fake-encoder-{self.width}-{self._max_words}"

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "B D"]:
        vectors_BD = np.zeros((len(texts), self.width), dtype=np.float32)
        for row, text in zip(vectors_BD, texts, strict=True):
            for word in _words(text)[: self._max_words]:
                row[crc32(word.encode()) % self.width] += 1
        lengths_B1 = np.linalg.norm(vectors_BD, axis=1, keepdims=True)
        return vectors_BD / np.where(lengths_B1 > 0, lengths_B1, 1).astype(np.float32)

    def count_cut(self, texts: Sequence[str]) -> int:
        return sum(len(_words(text)) > self._max_words for text in texts)


def fake_reward(prompts: Sequence[Prompt], completions: Sequence[Sequence[str]], /, **_: Any) -> np.ndarray:
    """The share of a text's words that its prompt holds, 0 without words."""
    rewards = [
        [np.mean([word in _words(prompt.text) for word in _words(text)] or [0.0]) for text in texts]
        for prompt, texts in zip(prompts, completions, strict=True)
    ]
    return np.array(rewards, dtype=np.float64)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def check_language_model(lm: LanguageModel, prompts: Sequence[Prompt] | None = None) -> None:
    """Raises when a language model breaks a promise of `LanguageModel`; draws about thirty short completions.

    Args:
        prompts: what to ask, two prompts or more that differ in length; None for three of recloop's own.

    Raises:
        ContractError: the first promise it breaks.
    """
    prompts = list(prompts or _sample_prompts())
    sampling = Sampling(num_completions=3, temperature=1.0, top_p=1.0, max_tokens=8, seed=11)
    _require(bool(lm.name) and lm.name == lm.name.strip(), "name must be a text without outer spaces", lm.name)
    _require(lm.count_tokens("") == 0, "an empty text must count 0 tokens", lm.count_tokens(""))
    longer = lm.count_tokens("By genre: likes Drama, War.") > lm.count_tokens("By genre") >= 1
    _require(longer, "a longer text must count more tokens", lm.count_tokens("By genre"))
    together = _ask(lm, prompts, sampling)
    for prompt, completions_N in zip(prompts, together, strict=True):
        _check_completions(prompt, completions_N, sampling)
    texts = [_texts(completions_N) for completions_N in together]
    again = [_texts(d) for d in _ask(lm, prompts, sampling)]
    _require(texts == again, "the same seed must give the same completions", texts)
    alone = [_texts(_ask(lm, [prompt], sampling)[0]) for prompt in prompts]
    _require(alone == texts, "a prompt must get the same completions alone as in a batch", alone)
    last = [_texts(d) for d in _ask(lm, prompts, sampling.only(range(2, 3)))]
    _require(last == [t[2:] for t in texts], "first_completion=2 must continue where two completions ended", last)
    renamed = [replace(prompt, user=prompt.user + 1000) for prompt in prompts]
    shared = [_texts(d) for d in _ask(lm, renamed, sampling)]
    _require(shared == texts, "whose prompt it is must not change the completions", shared)


def _ask(lm: LanguageModel, prompts: Sequence[Prompt], sampling: Sampling) -> list[tuple[Completion, ...]]:
    answers = list(lm.generate(prompts, sampling))
    positions = sorted(position for position, _ in answers)
    _require(positions == list(range(len(prompts))), "every prompt must be answered once", positions)
    return [completions_N for _, completions_N in sorted(answers, key=lambda answer: answer[0])]


def _check_completions(prompt: Prompt, completions_N: Sequence[Completion], sampling: Sampling) -> None:
    numbers = [completion.completion for completion in completions_N]
    in_order = numbers == list(sampling.completion_numbers)
    _require(in_order, "completions must come in the order of their numbers", numbers)
    for completion in completions_N:
        _require(completion.user == prompt.user, f"a completion must carry its prompt's user {prompt.user}", completion)
        _require(0 <= completion.num_tokens <= sampling.max_tokens, "a completion must keep to max_tokens", completion)
        is_full = completion.is_finished or completion.num_tokens == sampling.max_tokens
        _require(is_full, "a completion that did not finish must have used all its tokens", completion)
        _require(not completion.logp_sum > 0, "logp_sum must be at most 0, or NaN when unknown", completion)


def _texts(completions_N: Sequence[Completion]) -> list[str]:
    return [completion.text for completion in completions_N]


def _sample_prompts() -> list[Prompt]:
    lines = [
        '5 stars | "Glass Harbour" | era 1990s | genre Drama, War | director Ann Vale',
        '2 stars | "Ox" | era 1980s | genre Comedy | director Bo Lee',
    ]
    texts = [lines[0], "\n".join(lines), "\n".join(lines * 4)]
    return [
        Prompt(user, "You summarise a user's preferences.", f"{text}\nAnalyse the preferences.", 1, 0)
        for user, text in enumerate(texts)
    ]


def check_encoder(encoder: TextEncoder) -> None:
    """Raises when an encoder breaks a promise of `TextEncoder`.

    Raises:
        ContractError: the first promise it breaks.
    """
    claims = "By genre: likes War; dislikes Comedy. By director: likes Ann Vale."
    texts = ["By genre: likes Drama.", "", claims, "Café №5"]
    vectors_BD = encoder.encode(texts)
    _require(bool(encoder.name), "name must not be empty", encoder.name)
    wanted = (len(texts), encoder.width)
    _require(vectors_BD.shape == wanted, f"vectors must have shape {wanted}", vectors_BD.shape)
    _require(vectors_BD.dtype == np.float32, "vectors must be float32", vectors_BD.dtype)
    _require(bool(np.isfinite(vectors_BD).all()), "vectors must be finite, an empty text's too", vectors_BD)
    none_BD = encoder.encode([])
    _require(none_BD.shape == (0, encoder.width), "no texts must give no vectors", none_BD.shape)
    _require(_gap(encoder.encode(texts), vectors_BD) == 0, "the same texts must give the same vectors", None)
    alone_BD = np.concatenate([encoder.encode([text]) for text in texts])
    _require(_gap(alone_BD, vectors_BD) < FAR_APART, "a batch must not change a vector", _gap(alone_BD, vectors_BD))
    backwards_BD = encoder.encode(texts[::-1])[::-1]
    _require(_gap(backwards_BD, vectors_BD) < FAR_APART, "vectors must come in the order of the texts", None)
    _require(_gap(vectors_BD[:1], vectors_BD[2:3]) > FAR_APART, "different texts must have different vectors", None)
    cut = count_cut(encoder, ["word", "word " * 100_000])
    _require(cut in (0, 1) and count_cut(encoder, []) == 0, "count_cut must count the texts that are cut", cut)


def check_reward(reward: RewardFunction, prompts: Sequence[Prompt] | None = None, **context: Any) -> None:
    """Raises when a reward function breaks a promise of `RewardFunction`.

    Args:
        prompts: two prompts or more; None for three of recloop's own.
        context: what the function wants beside them, one value per prompt.

    Raises:
        ContractError: the first promise it breaks.
    """
    prompts = list(prompts or _sample_prompts())
    texts = [["By genre: likes Drama.", "", "By genre: likes War; dislikes Comedy."] for _ in prompts]

    def called(rows: Sequence[int], completions: Sequence[Sequence[str]]) -> np.ndarray:
        columns = {name: [values[row] for row in rows] for name, values in context.items()}
        return checked_rewards(reward([prompts[row] for row in rows], completions, **columns), completions)

    rows = range(len(prompts))
    rewards_PN = called(rows, texts)
    _require(_gap(called(rows, texts), rewards_PN) == 0, "the same texts must get the same rewards", None)
    alone_PN = np.concatenate([called([row], texts[row : row + 1]) for row in rows])
    _require(_gap(alone_PN, rewards_PN) < FAR_APART, "a reward must not depend on the other prompts", alone_PN)
    by_one = [called(rows, [[completions_N[n]] for completions_N in texts]) for n in range(3)]
    gap = _gap(np.concatenate(by_one, axis=1), rewards_PN)
    _require(gap < FAR_APART, "a reward must not depend on the other completions", gap)


def check_reranker(
    reranker: Reranker | Backbone, lists: Lists | None = None, user_vectors: UserVectors | None = None
) -> None:
    """Raises when a reranker, or a backbone of your own fitted for one epoch, breaks a promise of `Reranker`.

    Args:
        reranker: an object with a method ``score``, or a `Backbone`.
        lists: two lists or more that the object can score; not needed for a backbone.
        user_vectors: with two completions or more of their users; None for a reranker without texts.

    Raises:
        ContractError: the first promise it breaks.
    """
    if not hasattr(reranker, "score"):
        from recloop.rerankers.train import fit_network

        data = _small_fit()
        fitted = fit_network(RerankerConfig(max_epochs=1, min_epoch_steps=1), data, 0, own=cast(Backbone, reranker))
        reranker, lists, user_vectors = fitted, data.valid, data.user_vectors
    if lists is None:
        raise ContractError("a reranker that is fitted already is checked on lists, got none; pass two lists or more")
    reranker = cast(Reranker, reranker)
    before = lists.items_BL.copy(), lists.labels_BL.copy(), lists.is_item_BL.copy()
    scores_BNL = reranker.score(lists, user_vectors)
    num_completions = 1 if user_vectors is None else user_vectors.vectors_UND.shape[1]
    wanted = (len(lists), num_completions, lists.items_BL.shape[1])
    _require(scores_BNL.shape == wanted, f"scores must have shape {wanted}", scores_BNL.shape)
    _require(scores_BNL.dtype == np.float32, "scores must be float32", scores_BNL.dtype)
    is_item_BNL = np.broadcast_to(lists.is_item_BL[:, None], wanted)
    _require(bool(np.isfinite(scores_BNL[is_item_BNL]).all()), "scores of items must be finite", scores_BNL)
    _require(bool((scores_BNL[~is_item_BNL] == -np.inf).all()), "scores of padding must be -inf", scores_BNL)
    after = lists.items_BL, lists.labels_BL, lists.is_item_BL
    is_same = all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))
    _require(is_same, "the lists must be left as they are", "a change")
    again_BNL = reranker.score(lists, user_vectors)
    _require(np.array_equal(again_BNL, scores_BNL), "the same lists must get the same scores", "others")
    for promise, others_BNL in _scored_otherwise(reranker, lists, user_vectors):
        gap = _gap(others_BNL[:, :, : wanted[2]][is_item_BNL], scores_BNL[is_item_BNL])
        _require(gap < FAR_APART, promise, gap)


def _scored_otherwise(
    reranker: Reranker, lists: Lists, user_vectors: UserVectors | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Promises, each with scores that must be those of the lists as they are."""
    yield "labels must not be read", reranker.score(replace(lists, labels_BL=1 - lists.labels_BL), user_vectors)
    rows = np.arange(len(lists))
    alone = [reranker.score(lists.take(rows[b : b + 1]), user_vectors) for b in rows]
    yield "a list's scores must not depend on the other lists", np.concatenate(alone)
    yield "padding must not change a score", reranker.score(_padded(lists), user_vectors)
    if user_vectors is not None:
        by_completion = [
            reranker.score(lists, replace(user_vectors, vectors_UND=user_vectors.vectors_UND[:, n : n + 1]))
            for n in range(user_vectors.vectors_UND.shape[1])
        ]
        promise = "a completion's scores must not depend on the other completions"
        yield promise, np.concatenate(by_completion, axis=1)


def _small_fit() -> FitData:
    """A dozen users with random lists of 2 to 5 items and two texts each: for shapes, not for learning."""
    from recloop.rerankers.train import FitData

    rng = np.random.default_rng(0)

    def lists_of(group: Group, users: np.ndarray) -> Lists:
        is_item_BL = np.arange(7) < rng.integers(2, 6, len(users))[:, None]
        items_BL = np.where(is_item_BL, rng.integers(0, 20, is_item_BL.shape), 0)
        labels_BL = np.where(np.arange(7) < 1, 1.0, 0.0) * is_item_BL
        return Lists(group, users, items_BL, labels_BL.astype(np.float32), is_item_BL)

    users = np.arange(12)
    histories = Histories(np.arange(13) * 2, rng.integers(0, 20, 24), rng.integers(1, 6, 24).astype(np.float32))
    features = ItemFeatures(20, (rng.integers(0, 4, (20, 2)),), (3,), None)
    vectors = UserVectors(users, rng.normal(size=(12, 2, 4)).astype(np.float32))
    valid = lists_of(Group.VALID, users[8:])
    narrow = replace(
        valid, items_BL=valid.items_BL[:, :5], labels_BL=valid.labels_BL[:, :5], is_item_BL=valid.is_item_BL[:, :5]
    )
    return FitData(features, histories, lists_of(Group.TRAIN, users[:8]), narrow, vectors)


def _padded(lists: Lists) -> Lists:
    """The same lists with two columns of padding to the right."""
    arrays = (np.pad(array_BL, ((0, 0), (0, 2))) for array_BL in (lists.items_BL, lists.labels_BL, lists.is_item_BL))
    return Lists(lists.group, lists.user_B, *arrays)


def _gap(one: np.ndarray, other: np.ndarray) -> float:
    """Largest absolute difference, relative to the larger of 1 and the largest value."""
    if not one.size:
        return 0.0
    return float(np.abs(one - other).max() / max(1.0, float(np.abs(other).max())))


def _require(holds: bool, promise: str, got: object) -> None:
    if not holds:
        raise ContractError(f"{promise}, got {got!r}; see the protocol's docstring")
