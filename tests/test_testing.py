from dataclasses import replace

import numpy as np
import pytest

from recloop.errors import ContractError
from recloop.llm.language_model import Sampling
from recloop.prompts.claims import Polarity, parse_claims
from recloop.records import Group, Lists, Prompt, UserVectors
from recloop.rerankers.backbones import BACKBONES
from recloop.testing import (
    FakeEncoder,
    FakeLM,
    check_encoder,
    check_language_model,
    check_reranker,
    check_reward,
    fake_reward,
)

ATTRIBUTES = ("era", "genre", "director")
TEXT = (
    "2 films, average 3.5 stars, oldest first:\n"
    '5 stars | "Glass Harbour" | era 1990s | genre Drama, War | director Ann Vale\n'
    '2 stars | "Ox" | era 1980s | genre Comedy\n'
    "Analyse the preferences by era, genre, director: likes and dislikes."
)


def test_the_fakes_keep_their_contracts():
    check_language_model(FakeLM())
    check_language_model(FakeLM(num_attributes_named=3))
    check_encoder(FakeEncoder())
    check_reward(fake_reward)


def test_fake_completions_are_canonical_and_say_what_stands_in_the_prompt():
    sampling = Sampling(num_completions=50, temperature=1.0, top_p=1.0, max_tokens=64, seed=0)
    ((_, completions),) = FakeLM(ATTRIBUTES, num_attributes_named=2).generate([Prompt(4, "", TEXT, 2, 0)], sampling)
    values = {
        Polarity.LIKES: {"1990s", "Drama", "Ann Vale"},
        Polarity.DISLIKES: {"1980s", "Comedy"},
    }
    parsed = [parse_claims(completion.text, ATTRIBUTES) for completion in completions]
    assert all(one.is_well_formed and len(one.attributes) <= 2 for one in parsed)
    assert all(claim.value in values[claim.polarity] for one in parsed for claim in one.claims)
    assert {claim.value for one in parsed for claim in one.claims} == values["likes"] | values["dislikes"]
    assert all(completion.is_finished for completion in completions)


def test_fake_lm_says_which_attributes_it_was_made_for():
    sampling = Sampling(1, 1.0, 1.0, 64, 0)
    with pytest.raises(ContractError, match="pass the dataset's attributes"):
        list(FakeLM(("genre",)).generate([Prompt(0, "", TEXT, 2, 0)], sampling))


def test_fake_encoder_is_a_bag_of_words():
    one, same, other, none = FakeEncoder().encode(["likes war", "War likes", "likes drama", ""])
    assert np.array_equal(one, same)
    assert 0 < one @ other < 1
    assert np.linalg.norm(one) == pytest.approx(1)
    assert not none.any()
    assert FakeEncoder(max_words=2).count_cut(["a b c", "a b"]) == 1


class WrongName(FakeLM):
    @property
    def name(self):
        return ""


class BatchDependent(FakeLM):
    def generate(self, prompts, sampling):
        yield from super().generate(prompts, replace(sampling, seed=len(prompts)))


class Forgetful(FakeLM):
    def generate(self, prompts, sampling):
        yield from list(super().generate(prompts, sampling))[1:]


class Unseeded(FakeLM):
    seed = 0

    def generate(self, prompts, sampling):
        self.seed += 1
        yield from super().generate(prompts, replace(sampling, seed=self.seed))


class Rambling(FakeLM):
    def generate(self, prompts, sampling):
        yield from super().generate(prompts, replace(sampling, max_tokens=100))


class RestartsCounting(FakeLM):
    def generate(self, prompts, sampling):
        for position, completions in super().generate(prompts, replace(sampling, first_completion=0)):
            numbers = sampling.completion_numbers
            yield position, tuple(replace(d, completion=n) for d, n in zip(completions, numbers, strict=True))


class ReadsUser(FakeLM):
    def generate(self, prompts, sampling):
        for position, completions in super().generate(prompts, sampling):
            yield position, tuple(replace(d, text=f"{d.text} {prompts[position].user}") for d in completions)


@pytest.mark.parametrize(
    ("lm", "message"),
    [
        (WrongName(), "name must"),
        (BatchDependent(), "alone as in a batch"),
        (Forgetful(), "answered once"),
        (Unseeded(), "same seed"),
        (Rambling(num_attributes_named=3), "keep to max_tokens"),
        (RestartsCounting(), "first_completion=2"),
        (ReadsUser(), "whose prompt"),
    ],
)
def test_a_language_model_that_breaks_its_word_is_found_out(lm, message):
    with pytest.raises(ContractError, match=message):
        check_language_model(lm)


class Halved(FakeEncoder):
    def encode(self, texts):
        return super().encode(texts).astype(np.float16)


class Centred(FakeEncoder):
    def encode(self, texts):
        vectors = super().encode(texts)
        return vectors - vectors.mean(axis=0) if len(vectors) else vectors


class Constant(FakeEncoder):
    def encode(self, texts):
        return np.ones((len(texts), self.width), dtype=np.float32)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [(Halved(), "float32"), (Centred(), "batch must not change"), (Constant(), "different texts")],
)
def test_an_encoder_that_breaks_its_word_is_found_out(encoder, message):
    with pytest.raises(ContractError, match=message):
        check_encoder(encoder)


class DotReranker:
    """Scores an item by a product of its embedding with the user's vector; `fault` breaks one promise."""

    def __init__(self, fault=None):
        self.fault = fault
        self.items_ID = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)

    def score(self, lists, user_vectors):
        if user_vectors is None:
            users_BND = np.ones((len(lists), 1, 4), dtype=np.float32)
        else:
            users_BND = user_vectors.vectors_UND[user_vectors.rows_of(lists.user_B)]
        scores_BNL = np.einsum("bnd,bld->bnl", users_BND, self.items_ID[lists.items_BL])
        if self.fault == "labels":
            scores_BNL = scores_BNL + lists.labels_BL[:, None]
        if self.fault == "padding":
            scores_BNL = scores_BNL - scores_BNL.mean(axis=2, keepdims=True)
        if self.fault == "batch_size":
            scores_BNL = scores_BNL - scores_BNL.mean(axis=0, keepdims=True)
        if self.fault == "completions":
            scores_BNL = scores_BNL - scores_BNL.mean(axis=1, keepdims=True)
        scores_BNL = np.where(lists.is_item_BL[:, None], scores_BNL, -np.inf)
        if self.fault == "nan":
            scores_BNL[0, 0, 0] = np.nan
        return scores_BNL.astype(np.float64 if self.fault == "dtype" else np.float32)


def make_lists():
    rng = np.random.default_rng(1)
    is_item_BL = np.ones((4, 5), dtype=bool)
    is_item_BL[1, 3:] = False
    labels_BL = (rng.random((4, 5)) < 0.4).astype(np.float32) * is_item_BL
    items_BL = np.where(is_item_BL, rng.integers(1, 30, (4, 5)), 0)
    return Lists(Group.REWARD, np.array([0, 0, 2, 3]), items_BL, labels_BL, is_item_BL)


def make_vectors():
    vectors_UND = np.random.default_rng(2).normal(size=(3, 2, 4)).astype(np.float32)
    return UserVectors(np.array([0, 2, 3]), vectors_UND)


@pytest.mark.parametrize("vectors", [make_vectors(), None], ids=["texts", "no texts"])
def test_a_reranker_that_keeps_its_word_passes(vectors):
    check_reranker(DotReranker(), make_lists(), vectors)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("labels", "labels must not be read"),
        ("padding", "padding must not change"),
        ("batch_size", "other lists"),
        ("completions", "other completions"),
        ("nan", "must be finite"),
        ("dtype", "float32"),
    ],
)
def test_a_reranker_that_breaks_its_word_is_found_out(fault, message):
    with pytest.raises(ContractError, match=message):
        check_reranker(DotReranker(fault), make_lists(), make_vectors())


def pointwise(score):
    """A backbone that gives each candidate `score` of its features."""
    from torch import nn

    class Pointwise(nn.Module):
        def __init__(self, shape, config):
            super().__init__()
            self.layer = nn.Linear(shape.width, 1)

        def forward(self, batch):
            return score(self.layer(batch.features()).squeeze(-1))

    return Pointwise


@pytest.mark.slow
def test_backbones_that_keep_their_word_pass():
    for backbone in (*BACKBONES.values(), pointwise(lambda scores: scores)):
        check_reranker(backbone)


def test_a_backbone_that_reads_other_lists_is_found_out():
    with pytest.raises(ContractError, match="other lists"):
        check_reranker(pointwise(lambda scores: scores - scores.mean(dim=0)))
    with pytest.raises(ContractError, match="pass two lists or more"):
        check_reranker(DotReranker())


def lengths(completions):
    return np.array([[float(len(text)) for text in texts] for texts in completions])


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda prompts, texts, **_: lengths(texts)[:, 0], "one finite number per completion"),
        (lambda prompts, texts, **_: np.log(lengths(texts)), "one finite number per completion"),
        (lambda prompts, texts, **_: lengths(texts) - lengths(texts).mean(), "other"),
        (lambda prompts, texts, **_: lengths(texts) / lengths(texts).max(axis=1, keepdims=True), "finite number"),
        (lambda prompts, texts, **_: lengths(texts) + np.random.rand(), "same texts"),  # noqa: NPY002
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_a_reward_that_breaks_its_word_is_found_out(reward, message):
    with pytest.raises(ContractError, match=message):
        check_reward(reward)


def test_a_reward_gets_the_context_of_its_prompts():
    def reward(prompts, completions, /, *, wanted, **_):
        return np.array([[float(word in text) for text in t] for word, t in zip(wanted, completions, strict=True)])

    check_reward(reward, wanted=["Drama", "War", "Comedy"])
