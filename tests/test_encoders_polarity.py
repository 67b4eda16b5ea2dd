"""Likes and dislikes encoded apart."""

import numpy as np
import pytest

from recloop.encoders.load import load_encoder
from recloop.encoders.polarity import PolarityEncoder, split_polarity
from recloop.encoders.sentence import MiniLmEncoder
from recloop.testing import FakeEncoder, check_encoder


@pytest.mark.parametrize(
    ("text", "affirmed", "denied"),
    [
        ("", "", ""),
        ("By era: mixed.", "By era: mixed.", ""),
        ("By era: dislikes 1980s.", "", "By era: dislikes 1980s."),
        (
            "By genre: likes War, Noir; dislikes Drama. By director: likes A. Vale.",
            "By genre: likes War, Noir. By director: likes A. Vale.",
            "By genre: dislikes Drama.",
        ),
        ("Doesn't care for gore. Loves wit!", "Loves wit!", "Doesn't care for gore."),
        ("Warm to epics while rarely moved by farce", "Warm to epics.", "while rarely moved by farce."),
        ("Dr. No and Snow White", "Dr. No and Snow White.", ""),
        (
            "By director: likes Ann Vale; dislikes Cecil B. DeMille, J. Lee Thompson. By era: likes 1990s.",
            "By director: likes Ann Vale. By era: likes 1990s.",
            "By director: dislikes Cecil B. DeMille, J. Lee Thompson.",
        ),
        (
            "By author: likes J. R. R. Tolkien; dislikes Stephen King.",
            "By author: likes J. R. R. Tolkien.",
            "By author: dislikes Stephen King.",
        ),
        (
            "By mood: likes Calm; dislikes Loud; also Warm. By era: mixed. By genre: dislikes War.",
            "By mood: likes Calm; also Warm. By era: mixed.",
            "By mood: dislikes Loud. By genre: dislikes War.",
        ),
        ("By brand: likes Not Your Mother's.", "By brand: likes Not Your Mother's.", ""),
        ("No clear preference.", "No clear preference.", ""),
        # Prose, and canonical texts that were cut.
        ("By brand: likes Not Your Mother's", "By brand: likes Not Your Mother's.", ""),
        ("By director: dislikes Cecil B. DeMille, J. L", "", "By director: dislikes Cecil B. DeMille, J. L."),
        ("Does NOT like war\nLikes J. Lee Thompson", "Likes J. Lee Thompson.", "Does NOT like war."),
        ("2) Avoids musicals", "", "2) Avoids musicals."),
        ("Loves noir, but Not musicals", "Loves noir.", "but Not musicals."),
        ("Likes: Drama. Dislikes: War.", "Likes: Drama.", "Dislikes: War."),
        ("He doesn’t care for gore. Not keen on war.", "", "He doesn’t care for gore. Not keen on war."),
    ],
)
def test_clauses_go_to_their_side_under_their_head(text: str, affirmed: str, denied: str) -> None:
    assert split_polarity(text) == (affirmed, denied)


def test_it_is_an_encoder() -> None:
    encoder = PolarityEncoder(FakeEncoder())
    check_encoder(encoder)
    assert encoder.name == f"polarity-2-{FakeEncoder().name}"  # 1 split names at their initials
    assert not encoder.encode(["By era: mixed."])[0, FakeEncoder().width :].any()


def test_halves_are_what_the_inner_encoder_makes_of_them() -> None:
    inner = FakeEncoder()
    texts = ["By genre: likes War; dislikes Drama.", "By genre: likes War."]
    found_BD = PolarityEncoder(inner).encode(texts)
    likes_D, dislikes_D = inner.encode(["By genre: likes War.", "By genre: dislikes Drama."])
    np.testing.assert_array_equal(found_BD[0], np.concatenate([likes_D, dislikes_D]))
    np.testing.assert_array_equal(found_BD[1], np.concatenate([likes_D, np.zeros_like(likes_D)]))


@pytest.mark.slow
def test_a_sentence_encoder_hardly_sees_what_this_one_does() -> None:
    """Two texts of opposite meaning: nearly one vector for MiniLM, a right angle and more for this."""

    def cosine(one_D: np.ndarray, other_D: np.ndarray) -> float:
        return float(one_D @ other_D / np.linalg.norm(one_D) / np.linalg.norm(other_D))

    texts = ["By genre: likes War; dislikes Drama.", "By genre: likes Drama; dislikes War."]
    whole, apart = MiniLmEncoder(device="cpu"), load_encoder(by_polarity=True)
    assert cosine(*whole.encode(texts)) > 0.95
    assert cosine(*apart.encode(texts)) < cosine(*whole.encode(texts)) - 0.1
