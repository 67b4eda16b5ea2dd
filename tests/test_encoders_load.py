"""Text encoders by name, and completions turned into vectors."""

import numpy as np
import pytest

from recloop.encoders.load import encode, load_encoder
from recloop.encoders.sentence import count_cut
from recloop.errors import SettingError
from recloop.records import Completion, UserCompletions
from recloop.testing import FakeEncoder


class CountingEncoder:
    """The least that an encoder of one's own must have: a name, a width, and vectors."""

    name, width = "letters-and-words", 2

    def __init__(self):
        self.num_texts = 0

    def encode(self, texts):
        self.num_texts += len(texts)
        return np.array([[len(text), len(text.split())] for text in texts], dtype=np.float32).reshape(-1, 2)


def completions_of(texts_UN):
    completions_UN = tuple(
        tuple(Completion(user, n, text, 3, True, -1.0) for n, text in enumerate(texts_N))
        for user, texts_N in enumerate(texts_UN)
    )
    return UserCompletions(np.arange(len(texts_UN)), completions_UN)


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(SettingError, match="minilm or static or claims or sentence:NAME_OR_FOLDER, got 'minilmm'"):
        load_encoder("minilmm")
    with pytest.raises(SettingError, match="must be minilm or"):
        load_encoder("sentence:")


def test_an_object_is_returned_as_it_is_or_split_by_polarity():
    encoder = FakeEncoder(16)
    assert load_encoder(encoder) is encoder
    assert load_encoder(encoder, by_polarity=True).width == 32


def test_an_encoder_of_ones_own_needs_a_name_a_width_and_vectors(tmp_path):
    encoder, texts = CountingEncoder(), completions_of([["likes war", "a"], ["a", ""]])
    vectors = encode(encoder, texts, cache=tmp_path / "vectors.sqlite")
    assert vectors.vectors_UND.tolist() == [[[9, 2], [1, 1]], [[1, 1], [0, 0]]]
    assert encoder.num_texts == 3
    again = encode(encoder, texts, cache=tmp_path / "vectors.sqlite")
    assert np.array_equal(again.vectors_UND, vectors.vectors_UND)
    assert encoder.num_texts == 3
    assert np.array_equal(encode(encoder, texts).vectors_UND, vectors.vectors_UND)
    assert count_cut(encoder, ["a"]) == 0
    assert load_encoder(encoder, by_polarity=True).encode(["Enjoys noir, but avoids musicals."]).shape == (1, 4)
