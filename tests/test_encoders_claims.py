"""Claims read exactly into vectors; likes and dislikes encoded apart."""

import numpy as np
import pytest

from recloop.encoders.claims import ClaimsEncoder, PolarityEncoder, read_summary, split_polarity
from recloop.encoders.load import load_encoder
from recloop.encoders.sentence import MiniLmEncoder
from recloop.testing import FakeEncoder, check_encoder

TEXT = "By sub-genre: likes War, Noir; dislikes Drama. By era: likes 1990s; also 1980s."


def test_it_is_an_encoder() -> None:
    encoder = load_encoder("claims")
    assert isinstance(encoder, ClaimsEncoder)
    check_encoder(encoder)


def test_opposite_claims_have_opposite_vectors_and_texts_add_up() -> None:
    likes, dislikes, war, both, reordered = ClaimsEncoder().encode(
        [
            "By genre: likes Drama.",
            "By genre: dislikes Drama.",
            "By genre: likes War.",
            "By genre: likes War, Drama.",
            "By genre: likes Drama, War.",
        ]
    )
    np.testing.assert_array_equal(likes, -dislikes)
    np.testing.assert_allclose(both, likes + war, atol=1e-6)
    np.testing.assert_allclose(both, reordered, atol=1e-6)
    assert np.linalg.norm(likes) == np.float32(1)
    assert abs(float(likes @ war)) < 0.25


def test_attributes_are_found_in_the_text_and_tell_values_apart() -> None:
    assert [(claim.attribute, claim.value) for claim in read_summary(TEXT).claims] == [
        ("sub-genre", "War"),
        ("sub-genre", "Noir"),
        ("sub-genre", "Drama"),
        ("era", "1990s"),
        ("era", "1980s"),
    ]
    assert read_summary(TEXT.replace(". By", ".\nBy")) == read_summary(TEXT)
    one, other = ClaimsEncoder().encode(["By genre: likes War.", "By theme: likes War."])
    assert abs(float(one @ other)) < 0.25


def test_what_is_no_claim_says_nothing() -> None:
    vectors_BD = ClaimsEncoder().encode(["", "Loves war films.", "By era: mixed.", "By genre:"])
    assert not vectors_BD.any()


def test_a_linear_map_tells_who_likes_and_who_dislikes() -> None:
    """Sixty values, ten claims a text: signs are read off with hardly an error."""
    rng = np.random.default_rng(0)
    sign_BV = rng.choice([-1, 0, 1], size=(800, 60), p=[0.08, 0.84, 0.08])
    texts = [
        f"By genre: likes {', '.join(f'v{v}' for v in np.flatnonzero(row > 0)) or 'a'}; dislikes "
        f"{', '.join(f'v{v}' for v in np.flatnonzero(row < 0)) or 'b'}."
        for row in sign_BV
    ]
    x_BD = ClaimsEncoder().encode(texts)
    weights_DV = np.linalg.lstsq(x_BD[:600], sign_BV[:600], rcond=None)[0]
    error = np.abs(x_BD[600:] @ weights_DV - sign_BV[600:]).max()
    assert error < 0.1


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


@pytest.mark.slow
def test_both_halves_are_an_encoder() -> None:
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
