"""Scoring: each list by itself, each completion by itself, and the same again from a folder."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from torch import nn

from ranking_by_hand import random_problem, taste_problem
from recloop.errors import ContractError, DataError, SettingError
from recloop.records import Histories, Lists, UserVectors
from recloop.rerankers import fitted as fitted_module
from recloop.rerankers.fitted import FittedReranker
from test_rerankers_train import KINDS, fit

PROBLEM = random_problem()


@cache
def reranker_of(kind):
    return fit(PROBLEM, PROBLEM.vectors, kind=kind, use_id_history=True, use_item_knowledge=True, max_epochs=1)


def assert_close(got, expected):
    np.testing.assert_array_equal(np.isneginf(got), np.isneginf(expected))
    real = ~np.isneginf(expected)
    np.testing.assert_allclose(got[real], expected[real], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_equals_its_lists_one_by_one(kind):
    reranker = reranker_of(kind)
    together = reranker.score(PROBLEM.test, PROBLEM.vectors)
    alone = [reranker.score(PROBLEM.test.take(np.array([row])), PROBLEM.vectors) for row in range(len(PROBLEM.test))]
    assert_close(np.concatenate(alone), together)


@pytest.mark.parametrize("kind", KINDS)
def test_every_completion_is_scored_as_if_it_were_the_only_one(kind):
    reranker = reranker_of(kind)
    together = reranker.score(PROBLEM.test, PROBLEM.vectors)
    for completion in range(3):
        only = replace(PROBLEM.vectors, vectors_UND=PROBLEM.vectors.vectors_UND[:, [completion]])
        assert_close(reranker.score(PROBLEM.test, only)[:, 0], together[:, completion])


@pytest.mark.parametrize("kind", KINDS)
def test_equal_texts_of_a_user_are_scored_once_and_alike(kind, monkeypatch):
    reranker, vectors_UND = reranker_of(kind), PROBLEM.vectors.vectors_UND
    place_UN = np.random.default_rng(3).integers(0, 3, (len(vectors_UND), 7))
    repeated = replace(PROBLEM.vectors, vectors_UND=np.take_along_axis(vectors_UND, place_UN[:, :, None], axis=1))
    seen = []
    forward = type(reranker.network).forward
    monkeypatch.setattr(
        type(reranker.network), "forward",
        lambda self, lists, *rest: seen.append(lists.texts_UND.shape[1]) or forward(self, lists, *rest),
    )  # fmt: skip
    scores_BNL = reranker.score(PROBLEM.test, repeated)
    assert 1 < max(seen) <= 3
    row_B = PROBLEM.vectors.rows_of(PROBLEM.test.user_B)
    once_BNL = reranker.score(PROBLEM.test, PROBLEM.vectors)
    assert_close(scores_BNL, np.take_along_axis(once_BNL, place_UN[row_B][:, :, None], axis=1))
    for scores_NL, place_N in zip(scores_BNL, place_UN[row_B], strict=True):
        for place in range(3):
            assert len(np.unique(scores_NL[place_N == place], axis=0)) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_without_history_inside_a_full_batch(kind):
    reranker = reranker_of(kind)
    rows = np.flatnonzero(PROBLEM.train.user_B == 5)
    mixed = reranker.score(PROBLEM.train, PROBLEM.vectors)
    assert np.isfinite(mixed[rows][PROBLEM.train.is_item_BL[rows][:, None].repeat(3, axis=1)]).all()
    assert_close(reranker.score(PROBLEM.train.take(rows), PROBLEM.vectors), mixed[rows])


@pytest.mark.parametrize("kind", ["dlcm", "setrank", "mir"])
def test_wider_padding_changes_nothing(kind):
    lists = PROBLEM.test
    wider = Lists(
        lists.group,
        lists.user_B,
        *(np.pad(part, ((0, 0), (0, 3))) for part in (lists.items_BL, lists.labels_BL, lists.is_item_BL)),
    )
    reranker = reranker_of(kind)
    scores = reranker.score(wider, PROBLEM.vectors)
    assert np.isneginf(scores[:, :, 6:]).all()
    assert_close(scores[:, :, :6], reranker.score(lists, PROBLEM.vectors))


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 7, 40, 10_000])
def test_lists_of_mixed_lengths_are_scored_as_if_alone(most, monkeypatch):
    monkeypatch.setattr(fitted_module, "MAX_POSITIONS", most)
    problem, reranker = PROBLEM, reranker_of("prm")
    lengths_B = np.random.default_rng(0).integers(1, problem.test.items_BL.shape[1] + 1, size=len(problem.test))
    is_item_BL = np.arange(problem.test.items_BL.shape[1]) < lengths_B[:, None]
    mixed = replace(problem.test, is_item_BL=is_item_BL)
    together = reranker.score(mixed, problem.vectors)
    for row in range(len(mixed)):
        assert_close(together[row : row + 1], reranker.score(mixed.take(np.array([row])), problem.vectors))


def test_labels_are_not_read():
    blind = replace(PROBLEM.test, labels_BL=np.full_like(PROBLEM.test.labels_BL, np.nan))
    reranker = reranker_of("prm")
    np.testing.assert_array_equal(reranker.score(blind, PROBLEM.vectors), reranker.score(PROBLEM.test, PROBLEM.vectors))


def test_the_user_with_an_empty_window_is_told_apart_from_one_with_a_window():
    reranker = reranker_of("prm")
    empty = Histories(np.zeros(61, dtype=np.int64), np.array([], dtype=np.int64), np.array([], dtype=np.float32))
    without = replace(reranker, histories=empty).score(PROBLEM.test, PROBLEM.vectors)
    assert np.isfinite(without[PROBLEM.test.is_item_BL[:, None].repeat(3, axis=1)]).all()
    assert not np.array_equal(without, reranker.score(PROBLEM.test, PROBLEM.vectors))


def test_scoring_in_small_steps_changes_nothing(monkeypatch):
    reranker = reranker_of("mir")
    expected = reranker.score(PROBLEM.test, PROBLEM.vectors)
    monkeypatch.setattr(fitted_module, "MAX_POSITIONS", 40)
    assert_close(reranker.score(PROBLEM.test, PROBLEM.vectors), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_reranker_scores_exactly_alike(kind, tmp_path):
    reranker = reranker_of(kind)
    reranker.save(tmp_path)
    again = FittedReranker.load(tmp_path)
    np.testing.assert_array_equal(
        again.score(PROBLEM.test, PROBLEM.vectors), reranker.score(PROBLEM.test, PROBLEM.vectors)
    )
    assert (again.config, again.shape, again.curve) == (reranker.config, reranker.shape, reranker.curve)


def test_a_saved_reranker_without_texts_scores_exactly_alike(tmp_path):
    reranker = fit(PROBLEM, None, max_epochs=1)
    reranker.save(tmp_path)
    scores = FittedReranker.load(tmp_path).score(PROBLEM.test, None)
    assert scores.shape == (45, 1, 6)
    np.testing.assert_array_equal(scores, reranker.score(PROBLEM.test, None))


def test_a_folder_without_a_reranker_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"must hold reranker\.json"):
        FittedReranker.load(tmp_path)


def test_texts_must_be_given_as_at_the_fit():
    with pytest.raises(ContractError, match="fitted with user vectors, got none"):
        reranker_of("prm").score(PROBLEM.test, None)
    with pytest.raises(ContractError, match="fitted without user vectors, got some"):
        fit(PROBLEM, None, max_epochs=1).score(PROBLEM.test, PROBLEM.vectors)


def test_vectors_of_another_width_are_refused():
    narrow = UserVectors(PROBLEM.vectors.user_U, PROBLEM.vectors.vectors_UND[..., :5])
    with pytest.raises(DataError, match="12 wide as those the reranker was fitted on, got 5"):
        reranker_of("prm").score(PROBLEM.test, narrow)


def test_unknown_items_and_padding_before_items_are_refused():
    lists, reranker = PROBLEM.test, reranker_of("prm")
    with pytest.raises(DataError, match="items of lists must be 0 to 39"):
        reranker.score(replace(lists, items_BL=lists.items_BL + 1000), PROBLEM.vectors)
    with pytest.raises(DataError, match="items first and padding after"):
        reranker.score(replace(lists, is_item_BL=lists.is_item_BL[:, ::-1]), PROBLEM.vectors)


def test_the_centre_and_scale_come_from_train_users_only():
    vectors = PROBLEM.vectors.vectors_UND
    train_rows = vectors[:30].reshape(-1, 12).astype(np.float64)
    centre = train_rows.mean(axis=0)
    scaler = reranker_of("prm").scaler
    np.testing.assert_allclose(scaler.centre_D, centre, atol=1e-6)
    assert scaler.scale == pytest.approx(1 / np.sqrt(((train_rows - centre) ** 2).mean()))


class Pointwise(nn.Module):
    """A backbone of a user's own: each candidate by itself, with a loss of its own."""

    def __init__(self, shape, config):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(shape.width, config.mlp[0]), nn.ReLU(), nn.Linear(config.mlp[0], 1))

    def forward(self, batch):
        return self.layers(batch.features()).squeeze(-1)

    @staticmethod
    def loss(scores_BL, labels_BL, is_item_BL):
        loss_BL = nn.functional.binary_cross_entropy_with_logits(scores_BL, labels_BL, reduction="none")
        return (loss_BL * is_item_BL).sum() / is_item_BL.sum()


class ReadsHistory(Pointwise):
    reads_history = True

    def forward(self, batch):
        tokens_XHE, is_token_XH = batch.history()
        return super().forward(batch) + (tokens_XHE.sum(dim=2) * is_token_XH).sum(dim=1, keepdim=True)


def test_a_backbone_of_ones_own_is_fitted_saved_and_loaded(tmp_path):
    reranker = fit(PROBLEM, PROBLEM.vectors, own=Pointwise, max_epochs=2)
    reranker.save(tmp_path)
    again = FittedReranker.load(tmp_path, Pointwise)
    scores = reranker.score(PROBLEM.test, PROBLEM.vectors)
    np.testing.assert_array_equal(again.score(PROBLEM.test, PROBLEM.vectors), scores)
    for own, message in (
        (None, "was fitted with Pointwise, got no class"),
        (ReadsHistory, "was fitted with Pointwise, got ReadsHistory; pass Pointwise"),
    ):
        with pytest.raises((ContractError, DataError), match=message):
            FittedReranker.load(tmp_path, own)
    fit(PROBLEM, None, max_epochs=1).save(tmp_path)
    with pytest.raises(ContractError, match=r"was fitted with prm, got .*Pointwise"):
        FittedReranker.load(tmp_path, Pointwise)


@pytest.mark.slow
def test_a_backbone_of_ones_own_learns_and_may_read_the_history():
    problem = taste_problem(num_users=200)
    learnt = fit(problem, problem.vectors, own=Pointwise, max_epochs=8, min_epoch_steps=40)
    assert learnt.curve[-1].valid_ndcg > 0.9
    empty = Histories(np.zeros(61, dtype=np.int64), np.array([], dtype=np.int64), np.array([], dtype=np.float32))
    reranker = fit(PROBLEM, PROBLEM.vectors, own=ReadsHistory, max_epochs=1)
    without = replace(reranker, histories=empty).score(PROBLEM.test, PROBLEM.vectors)
    assert not np.array_equal(without, reranker.score(PROBLEM.test, PROBLEM.vectors))


@pytest.mark.slow
def test_the_public_fit_takes_a_name_or_a_class():
    import recloop as rl

    log = rl.load_log("simulated", users=60)
    lists = rl.candidate_lists(log)
    for kind, settings in (("setrank", {"use_item_knowledge": True}), (Pointwise, {})):
        reranker = rl.fit_reranker(kind, log, lists, max_epochs=1, **settings)
        assert reranker.score(lists.test, None).shape == (len(lists.test), 1, 10)
    with pytest.raises(SettingError, match="did you mean max_epochs"):
        rl.fit_reranker("prm", log, lists, max_epoch=1)
    with pytest.raises(SettingError, match=r"kind: .*'dlcm', 'prm', 'setrank' or 'mir'"):
        rl.fit_reranker("lambdamart", log, lists)
