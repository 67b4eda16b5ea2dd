"""Fits: what is learnt, what is refused, and that nothing leaks or depends on chance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from ranking_by_hand import random_problem, taste_problem
from recloop.errors import LeakageError, SettingError, TrainingError
from recloop.records import UserVectors
from recloop.rerankers import train as fit_module
from recloop.rerankers.config import RerankerConfig
from recloop.rerankers.fitted import FittedReranker
from recloop.rerankers.metrics import compute_metric, user_means
from recloop.rerankers.train import FitData, epoch_order, fit_network

SMALL = RerankerConfig(
    embed=8,
    adapted=8,
    expert_hidden=16,
    attention=8,
    gru=8,
    mlp=(16,),
    dropout=0.0,
    lr=0.02,
    batch_size=64,
    min_epoch_steps=2,
    max_epochs=5,
    patience=5,
)
KINDS = ["dlcm", "prm", "setrank", "mir"]


def fit(problem, vectors, seed=0, own=None, **settings):
    config = SMALL.model_copy(update=settings)
    data = FitData(problem.features, problem.histories, problem.train, problem.valid, vectors)
    return fit_network(config, data, seed, own=own)


def ndcg_of(problem, vectors, **settings):
    """Test users' mean NDCG@5 of a reranker fitted with these vectors."""
    scores_BNL = fit(problem, vectors, **settings).score(problem.test, vectors)
    values_B = compute_metric("ndcg@5", scores_BNL[:, 0], problem.test)
    return user_means(values_B, problem.test.user_B, "drop")[1].mean()


@pytest.mark.slow
@pytest.mark.parametrize("adaptor", ["hea", "mlp"])
def test_true_knowledge_beats_none_and_random_vectors_do_not(adaptor):
    problem = taste_problem()
    random = np.random.default_rng(0).normal(size=problem.vectors.vectors_UND.shape).astype(np.float32)
    none = ndcg_of(problem, None)
    assert ndcg_of(problem, problem.vectors, adaptor=adaptor) > 0.95
    assert none < 0.7
    assert ndcg_of(problem, replace(problem.vectors, vectors_UND=random), adaptor=adaptor) < none + 0.03


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dlcm", "setrank", "mir"])
def test_every_backbone_learns_from_true_knowledge(kind):
    problem = taste_problem()
    assert ndcg_of(problem, problem.vectors, kind=kind, max_epochs=10) > 0.95


@pytest.mark.slow
def test_the_id_history_tells_which_items_are_liked_by_its_rating_only():
    problem = taste_problem()
    blind = replace(problem.histories, rating=np.ones_like(problem.histories.rating))
    assert ndcg_of(problem, None, use_id_history=True, max_epochs=8) > 0.9
    assert ndcg_of(replace(problem, histories=blind), None, use_id_history=True, max_epochs=8) < 0.9


@pytest.mark.slow
def test_item_knowledge_speaks_for_items_never_seen_in_training():
    # Item i is of kind i % 4 and has no attribute; training shows items 0..19, the others hold items 20..39.
    problem = taste_problem()
    kinds_ID = np.eye(12, dtype=np.float32)[np.arange(40) % 4]
    cold = replace(
        problem,
        features=replace(problem.features, attribute_values_IM=(), num_values=(), item_vectors_ID=kinds_ID),
        train=replace(problem.train, items_BL=problem.train.items_BL % 20),
        valid=replace(problem.valid, items_BL=problem.valid.items_BL % 20 + 20),
        test=replace(problem.test, items_BL=problem.test.items_BL % 20 + 20),
    )
    assert ndcg_of(cold, cold.vectors, use_item_knowledge=True) > 0.95
    assert ndcg_of(cold, cold.vectors) < 0.7


def test_the_best_epoch_on_valid_users_is_kept():
    problem = random_problem()
    reranker = fit(problem, problem.vectors, max_epochs=6, patience=6)
    scores_BNL = reranker.score(problem.valid, problem.vectors)
    values_B = np.mean([compute_metric("ndcg@5", scores_BNL[:, n], problem.valid) for n in range(3)], axis=0)
    kept = user_means(values_B, problem.valid.user_B, "drop")[1].mean()
    assert len(reranker.curve) == 6
    assert kept == pytest.approx(max(epoch.valid_ndcg for epoch in reranker.curve), abs=1e-9)


def test_a_fit_stops_when_valid_users_stop_gaining():
    problem = random_problem()
    curve = fit(problem, problem.vectors, max_epochs=50, patience=2).curve
    best = int(np.argmax([epoch.valid_ndcg for epoch in curve]))
    assert len(curve) == min(best + 1 + 2, 50) < 50


def test_without_patience_the_last_epoch_is_kept_whatever_valid_users_say():
    problem = random_problem()
    kept = fit(problem, problem.vectors, max_epochs=6, patience=0)
    scores = [epoch.valid_ndcg for epoch in kept.curve]
    assert len(scores) == 6
    assert max(scores[:-1]) > scores[-1]  # so the best epoch is another one
    flipped = replace(problem.valid, labels_BL=(1 - problem.valid.labels_BL) * problem.valid.is_item_BL)
    other = fit(replace(problem, valid=flipped), problem.vectors, max_epochs=6, patience=0)
    for name, value in kept.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name


def test_labels_of_valid_users_choose_the_epoch_and_touch_nothing_else():
    problem = random_problem()
    flipped = replace(problem.valid, labels_BL=(1 - problem.valid.labels_BL) * problem.valid.is_item_BL)
    one = fit(problem, problem.vectors, max_epochs=1)
    other = fit(replace(problem, valid=flipped), problem.vectors, max_epochs=1)
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_scores_and_another_seed_others(kind):
    problem = random_problem()
    settings = {"kind": kind, "dropout": 0.2, "use_id_history": True, "max_epochs": 2}
    first, again, other = (
        fit(problem, problem.vectors, seed=seed, **settings).score(problem.test, problem.vectors) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_text_dropout_is_for_fitting_alone():
    problem = random_problem()
    plain, dropped = (fit(problem, problem.vectors, text_dropout=rate, max_epochs=1) for rate in (0.0, 0.5))
    lists = dropped.tensors(problem.test, problem.vectors)
    rows = torch.arange(len(problem.test))
    first, again = (dropped.network.eval()(lists, rows, None) for _ in range(2))
    assert torch.equal(first, again)
    noisy, other = (dropped.network.train()(lists, rows, None) for _ in range(2))
    assert not torch.equal(noisy, other)
    assert not torch.equal(first, plain.network.eval()(lists, rows, None))
    without = [fit(problem, None, text_dropout=rate, max_epochs=1) for rate in (0.0, 0.5)]
    assert torch.equal(*(one.network.state_dict()["item_ids.weight"] for one in without))


def test_the_weights_kept_are_an_exponential_average_of_all_steps(monkeypatch):
    seen = []

    class Watched(AveragedModel):
        def update_parameters(self, model):
            seen.append(model.item_ids.weight.detach().clone())
            super().update_parameters(model)

    monkeypatch.setattr(fit_module, "AveragedModel", Watched)
    problem = random_problem()
    fitted = fit(problem, problem.vectors, average_epochs=1.5, max_epochs=1)
    decay = 1 - 1 / (1.5 * len(seen))
    expected = seen[0]
    for weights in seen[1:]:
        expected = decay * expected + (1 - decay) * weights
    assert len(seen) > 1
    torch.testing.assert_close(fitted.network.item_ids.weight.detach(), expected)
    assert fitted.curve[0].train_loss == fit(problem, problem.vectors, max_epochs=1).curve[0].train_loss


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_threads_sum_a_gradient_in_one_order(kind):
    """A thousand lists read a hundred distinct rows, so threads meet at the same row all the time."""
    problem = random_problem()
    fitted = fit(problem, problem.vectors, kind=kind, use_id_history=True, max_epochs=1)
    network = fitted.network
    lists = fitted.tensors(problem.train, problem.vectors)
    row_B = torch.arange(1000) % len(problem.train)
    weight_B1L = torch.linspace(-1, 1, 1000)[:, None, None]

    def gradient() -> torch.Tensor:
        network.zero_grad()
        torch.manual_seed(0)
        scores_B1L = network(lists, row_B, torch.zeros_like(row_B))
        (scores_B1L.nan_to_num(neginf=0.0) * weight_B1L).sum().backward()
        return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first = gradient()
        assert all(torch.equal(first, gradient()) for _ in range(10))
    finally:
        torch.set_num_threads(threads)


def test_a_fit_leaves_the_global_generator_and_its_inputs_alone():
    problem, untouched = random_problem(), random_problem()
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    fit(problem, problem.vectors, max_epochs=1, use_item_knowledge=True)
    assert torch.rand(1) == expected
    np.testing.assert_array_equal(problem.vectors.vectors_UND, untouched.vectors.vectors_UND)
    np.testing.assert_array_equal(problem.features.item_vectors_ID, untouched.features.item_vectors_ID)
    np.testing.assert_array_equal(problem.train.items_BL, untouched.train.items_BL)


def test_every_list_is_seen_once_an_epoch_and_users_come_in_runs():
    rng = np.random.default_rng(0)
    users = np.sort(rng.integers(0, 20, 300))
    order = epoch_order(users, 4, rng)
    assert sorted(order.tolist()) == list(range(300))
    changes = int((np.diff(users[order]) != 0).sum()) + 1
    runs = sum(-(-count // 4) for count in np.unique(users, return_counts=True)[1])
    assert changes <= runs < 100
    assert not np.array_equal(order, epoch_order(users, 4, rng))


@pytest.mark.parametrize("swap", ["train", "valid"])
def test_lists_of_the_wrong_group_are_refused(swap):
    problem = random_problem()
    with pytest.raises(LeakageError, match="test users"):
        fit(replace(problem, **{swap: problem.test}), problem.vectors)


def padded(lists, list_len):
    """The same lists in a table of more columns."""
    wide = [np.pad(part, ((0, 0), (0, list_len - part.shape[1]))) for part in (lists.items_BL, lists.labels_BL)]
    is_item_BL = np.pad(lists.is_item_BL, ((0, 0), (0, list_len - lists.is_item_BL.shape[1])))
    return replace(lists, items_BL=wide[0], labels_BL=wide[1], is_item_BL=is_item_BL)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_lists_are_fitted_and_scored_alike_whatever_the_longest_list_may_be(kind):
    problem = random_problem()
    wide = replace(problem, **{name: padded(getattr(problem, name), 300) for name in ("train", "valid", "test")})
    scores = fit(problem, problem.vectors, kind=kind, max_epochs=2).score(problem.test, problem.vectors)
    wide_scores = fit(wide, problem.vectors, kind=kind, max_epochs=2).score(wide.test, problem.vectors)
    np.testing.assert_allclose(wide_scores[..., : scores.shape[-1]], scores, atol=1e-6)
    assert np.isneginf(wide_scores[..., scores.shape[-1] :]).all()


def test_lists_without_both_labels_teach_nothing():
    problem = random_problem()
    blank = replace(problem.train, labels_BL=np.zeros_like(problem.train.labels_BL))
    with pytest.raises(TrainingError, match="got 0 of 90 train lists"):
        fit(replace(problem, train=blank), problem.vectors)


def test_item_knowledge_that_is_absent_is_an_error():
    problem = taste_problem(num_users=40)
    with pytest.raises(SettingError, match="use_item_knowledge needs item vectors"):
        fit(problem, None, use_item_knowledge=True)


@pytest.mark.parametrize("adaptor", ["hea", "mlp"])
def test_texts_and_items_may_have_vectors_of_different_width(adaptor, tmp_path):
    problem = random_problem()
    wide = UserVectors(problem.vectors.user_U, np.random.default_rng(0).normal(size=(60, 1, 20)).astype(np.float32))
    fitted = fit(problem, wide, use_item_knowledge=True, adaptor=adaptor, max_epochs=1)
    fitted.save(tmp_path)
    again = FittedReranker.load(tmp_path)
    np.testing.assert_array_equal(fitted.score(problem.valid, wide), again.score(problem.valid, wide))


def test_a_loss_that_is_not_finite_stops_the_fit():
    problem = random_problem()
    with pytest.raises(TrainingError, match="must stay finite"):
        fit(problem, problem.vectors, lr=1e30)
