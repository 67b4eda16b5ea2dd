"""Knowledge adaptors against the formula, written out expert by expert."""

import torch

from recloop.rerankers.adaptor import Experts, HybridExpertAdaptor, MlpAdaptor, Tower

DIM, HIDDEN, WIDTH = 7, 5, 3


def plain_expert(experts, number, x):
    """Oracle: ``relu(W2 relu(W1 x + b1) + b2)`` of one expert and one vector."""
    rows = slice(number * HIDDEN, (number + 1) * HIDDEN)
    hidden = torch.relu(experts.enter.weight[rows] @ x + experts.enter.bias[rows])
    return torch.relu(experts.weight_EHW[number].T @ hidden + experts.bias_E1W[number, 0])


def test_hybrid_experts_equal_the_gated_sum_of_shared_and_private_experts():
    torch.manual_seed(0)
    adaptor = HybridExpertAdaptor(dict.fromkeys(Tower, DIM), 2, 3, HIDDEN, WIDTH)
    x = torch.randn(11, DIM)
    for tower in Tower:
        groups = [(adaptor.shared, 2), (adaptor.private[tower], 3)]
        for row, got in zip(x, adaptor(x, tower), strict=True):
            outputs = [plain_expert(group, e, row) for group, count in groups for e in range(count)]
            weights = torch.softmax(adaptor.gate[tower].weight @ row, dim=0)
            expected = sum(w * out for w, out in zip(weights, outputs, strict=True))
            torch.testing.assert_close(got, expected)


def test_shared_experts_learn_from_both_towers_and_private_ones_from_their_own():
    torch.manual_seed(0)
    adaptor = HybridExpertAdaptor(dict.fromkeys(Tower, DIM), 2, 3, HIDDEN, WIDTH)
    adaptor(torch.randn(4, DIM), Tower.USER).sum().backward()
    assert adaptor.shared.enter.weight.grad.abs().sum() > 0
    assert adaptor.private[Tower.USER].enter.weight.grad.abs().sum() > 0
    assert adaptor.private[Tower.ITEM].enter.weight.grad is None


def test_shared_experts_read_zeros_where_a_tower_is_narrower():
    torch.manual_seed(0)
    adaptor = HybridExpertAdaptor({Tower.USER: DIM, Tower.ITEM: 4}, 2, 1, HIDDEN, WIDTH)
    x = torch.randn(5, 4)
    padded = torch.cat([x, torch.zeros(5, DIM - 4)], dim=1)
    outputs = torch.cat([adaptor.shared(padded), adaptor.private[Tower.ITEM](x)], dim=1)
    expected = torch.einsum("be,bew->bw", torch.softmax(adaptor.gate[Tower.ITEM](x), dim=-1), outputs)
    torch.testing.assert_close(adaptor(x, Tower.ITEM), expected)


def test_an_expert_starts_as_a_linear_layer_would():
    torch.manual_seed(0)
    experts = Experts(100, 4, 50, 20)
    for weight, fan_in in ((experts.enter.weight, 100), (experts.weight_EHW, 50)):
        bound = fan_in**-0.5  # nn.Linear draws uniformly from +-1/sqrt(fan_in)
        assert 0.95 * bound < weight.abs().max() <= bound


def test_towers_of_the_mlp_adaptor_may_differ_in_width():
    adaptor = MlpAdaptor({Tower.USER: 7, Tower.ITEM: 9}, HIDDEN, WIDTH)
    user, item = torch.randn(2, 7), torch.randn(4, 9)
    torch.testing.assert_close(adaptor(user, Tower.USER)[1], plain_expert(adaptor.towers[Tower.USER], 0, user[1]))
    torch.testing.assert_close(adaptor(item, Tower.ITEM)[3], plain_expert(adaptor.towers[Tower.ITEM], 0, item[3]))
