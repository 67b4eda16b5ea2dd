"""Claims read exactly into vectors."""

import numpy as np

from recloop.encoders.claims import ClaimsEncoder, read_claims
from recloop.encoders.load import load_encoder
from recloop.testing import check_encoder

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
    assert [(claim.attribute, claim.value) for claim in read_claims(TEXT)] == [
        ("sub-genre", "War"),
        ("sub-genre", "Noir"),
        ("sub-genre", "Drama"),
        ("era", "1990s"),
        ("era", "1980s"),
    ]
    assert read_claims(TEXT.replace(". By", ".\nBy")) == read_claims(TEXT)
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
