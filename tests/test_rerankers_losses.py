"""Losses by hand and against the metric they mirror."""

import math

import numpy as np
import pytest
import torch

from recloop.rerankers.backbones import attention_rank_loss, softmax_loss
from recloop.rerankers.metrics import list_log_likelihood

LOSSES = [softmax_loss, attention_rank_loss]


def random_batch(seed=0, num_lists=30, list_len=7):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(num_lists, list_len, generator=generator)
    labels = (torch.rand(num_lists, list_len, generator=generator) < 0.4).float()
    labels[:, 0] = 1
    count = torch.randint(1, list_len + 1, (num_lists, 1), generator=generator)
    is_item = torch.arange(list_len) < count
    return scores, labels * is_item, is_item


def test_softmax_loss_is_the_negative_list_log_likelihood():
    scores, labels, is_item = random_batch()
    expected = -list_log_likelihood(scores.numpy(), labels.numpy(), is_item.numpy()).mean()
    assert softmax_loss(scores, labels, is_item).item() == pytest.approx(expected, abs=1e-6)


def test_attention_rank_loss_by_hand():
    # softmax of log 1, log 2, log 1 is 1/4, 1/2, 1/4; positives 1 and 2 deserve 1/2 each.
    # first: -(1/2 log 1/4 + 1/2 log 3/4); second: -(1/2 log 1/2 + 1/2 log 1/2); third: -log 3/4
    scores = torch.tensor([[0.0, math.log(2), 0.0, 99.0]])
    labels = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    is_item = torch.tensor([[True, True, True, False]])
    expected = -(0.5 * math.log(1 / 4) + 0.5 * math.log(3 / 4)) - math.log(1 / 2) - math.log(3 / 4)
    assert attention_rank_loss(scores, labels, is_item).item() == pytest.approx(expected, rel=1e-5)


def test_attention_rank_loss_stays_finite_when_one_item_takes_all():
    scores = torch.tensor([[80.0, 0.0]], requires_grad=True)
    loss = attention_rank_loss(scores, torch.tensor([[0.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_padding_counts_for_nothing_and_gets_no_gradient(loss):
    scores, labels, is_item = random_batch(1)
    moved = (scores + 7.0 * ~is_item).requires_grad_()
    assert loss(moved, labels, is_item).item() == loss(scores, labels, is_item).item()
    loss(moved, labels, is_item).backward()
    assert (moved.grad[~is_item] == 0).all()
    assert torch.isfinite(moved.grad).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_the_mean_over_lists(loss):
    scores, labels, is_item = random_batch(2)
    one_by_one = [loss(*(part[b : b + 1] for part in (scores, labels, is_item))).item() for b in range(30)]
    assert loss(scores, labels, is_item).item() == pytest.approx(np.mean(one_by_one), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_descending_a_loss_puts_positives_first(loss):
    _, labels, is_item = random_batch(3)
    scores = torch.zeros(labels.shape, requires_grad=True)
    optimiser = torch.optim.Adam([scores], lr=0.1)
    for _ in range(50):
        optimiser.zero_grad()
        loss(scores, labels, is_item).backward()
        optimiser.step()
    lowest_positive = scores.masked_fill(labels == 0, torch.inf).amin(dim=1)
    highest_negative = scores.masked_fill((labels > 0) | ~is_item, -torch.inf).amax(dim=1)
    assert (lowest_positive > highest_negative).all()
