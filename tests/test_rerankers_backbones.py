"""Properties every backbone has, and those by which they differ."""

import pytest
import torch

from recloop.errors import SettingError
from recloop.rerankers.backbones import BACKBONES, AttentionBlock, Mir, Prm
from recloop.rerankers.config import RerankerConfig
from recloop.rerankers.list_batch import BatchShape, ListBatch

WIDTH, TOKEN, LIST_LEN = 9, 8, 6
CONFIG = RerankerConfig(embed=TOKEN, attention=8, gru=5, mlp=(7, 4))
KINDS = list(BACKBONES)
SHAPE = BatchShape(WIDTH, TOKEN, LIST_LEN + 2)


def backbone_of(kind):
    """A backbone as a function of features and mask; for MIR with fixed history tokens of three users."""
    torch.manual_seed(0)
    backbone = BACKBONES[kind](SHAPE, CONFIG).eval()
    history = ()
    if kind == "mir":
        is_token = torch.tensor([[True] * 4, [True, False, False, False], [True, True, False, False]])
        history = torch.randn(3, 4, TOKEN), is_token

    def score(x, is_item, rows=slice(None)):
        return backbone(ListBatch(x, is_item, None, None, *(part[rows] for part in history)))

    score.module, score.history = backbone, history
    return score


def batch():
    torch.manual_seed(1)
    x = torch.randn(3, LIST_LEN, WIDTH)
    return x, torch.tensor([[True] * 6, [True] * 2 + [False] * 4, [True] * 4 + [False] * 2])


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing_whatever_it_holds(kind):
    backbone, (x, is_item) = backbone_of(kind), batch()
    expected = backbone(x, is_item)
    for filler in (0.0, 1e4):
        longer = torch.cat([x.masked_fill(~is_item[..., None], filler), torch.full((3, 2, WIDTH), filler)], 1)
        padded = backbone(longer, torch.cat([is_item, torch.zeros(3, 2, dtype=torch.bool)], 1))
        torch.testing.assert_close(padded[:, :LIST_LEN][is_item], expected[is_item])


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_equals_its_lists_one_by_one(kind):
    backbone, (x, is_item) = backbone_of(kind), batch()
    together = backbone(x, is_item)
    for row in range(3):
        rows = slice(row, row + 1)
        alone = backbone(x[rows], is_item[rows], rows)
        torch.testing.assert_close(alone[0][is_item[row]], together[row][is_item[row]])


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_is_scored_in_the_context_of_its_list(kind):
    backbone, (x, is_item) = backbone_of(kind), batch()
    other = x.clone()
    other[0, 0] += 1.0
    assert (backbone(other, is_item)[0, 1:] - backbone(x, is_item)[0, 1:]).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["setrank", "mir"])
def test_reordering_a_list_reorders_its_scores(kind):
    backbone, (x, is_item) = backbone_of(kind), batch()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved = backbone(torch.cat([x[:1, order], x[1:]]), is_item)
    torch.testing.assert_close(moved[0], backbone(x, is_item)[0][order])


@pytest.mark.parametrize("kind", ["prm", "dlcm"])
def test_prm_and_dlcm_see_the_order_of_a_list(kind):
    backbone, (x, is_item) = backbone_of(kind), (part[:1] for part in batch())
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved = backbone(x[:, order], is_item)[0]
    assert (moved - backbone(x, is_item)[0][order]).abs().max() > 1e-4


def test_dlcm_reads_each_list_from_its_last_item_to_its_first():
    backbone, (x, is_item) = backbone_of("dlcm"), batch()
    reversed_x = x[2:3, :4].flip(1)
    dlcm = backbone.module
    out, final = dlcm.gru(reversed_x)
    gated = out.flip(1) * torch.tanh(dlcm.gate(final[0]))[:, None]
    expected = dlcm.score.layers(torch.cat([gated, x[2:3, :4]], dim=-1))[0, :, 0]
    torch.testing.assert_close(backbone(x, is_item)[2, :4], expected)


def test_attention_equals_its_formula():
    torch.manual_seed(0)
    block, (x, is_item) = AttentionBlock(8), batch()
    x = x[..., :8]
    for row in range(3):
        real = x[row, is_item[row]]
        q, k, v = block.query_key_value(real).chunk(3, dim=-1)
        heads = [
            torch.softmax(q[:, part] @ k[:, part].T / 2.0, dim=-1) @ v[:, part]  # sqrt(4) = 2
            for part in (slice(0, 4), slice(4, 8))
        ]
        seen = block.norm_attention(real + block.leave(torch.cat(heads, dim=-1)))
        expected = block.norm_feed(seen + block.feed(seen))
        torch.testing.assert_close(block(x, is_item)[row, is_item[row]], expected)


def test_mir_depends_on_the_history_and_on_its_order():
    torch.manual_seed(0)
    mir, (x, is_item) = Mir(SHAPE, CONFIG).eval(), batch()
    tokens, is_token = torch.randn(3, 4, TOKEN), torch.ones(3, 4, dtype=torch.bool)
    scores = mir(ListBatch(x, is_item, None, None, tokens, is_token))
    for other in (tokens.flip(1), tokens + 1.0):
        assert (mir(ListBatch(x, is_item, None, None, other, is_token)) - scores)[is_item].abs().max() > 1e-4


def test_mir_ignores_padding_of_the_history():
    torch.manual_seed(0)
    mir, (x, is_item) = Mir(SHAPE, CONFIG).eval(), batch()
    tokens = torch.randn(3, 4, TOKEN)
    is_token = torch.tensor([[True, True, False, False]] * 3)
    noisy = tokens.masked_fill(~is_token[..., None], 1e3)
    padded, cut = (
        mir(ListBatch(x, is_item, None, None, *history))
        for history in ((noisy, is_token), (tokens[:, :2], is_token[:, :2]))
    )
    torch.testing.assert_close(padded, cut)


def test_beyond_the_longest_list_of_the_fit_prm_uses_its_last_position():
    torch.manual_seed(0)
    short = Prm(BatchShape(WIDTH, TOKEN, 3), CONFIG).eval()
    long = Prm(BatchShape(WIDTH, TOKEN, 6), CONFIG).eval()
    state = short.state_dict()
    state["position_L.weight"] = state["position_L.weight"][[0, 1, 2, 2, 2, 2]]
    long.load_state_dict(state)
    torch.testing.assert_close(short(ListBatch(*batch())), long(ListBatch(*batch())))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(SettingError, match=r"multiple of 2, got 9; use e\.g\. 10"):
        AttentionBlock(9)


@pytest.mark.parametrize("kind", KINDS)
def test_features_in_parts_are_scored_as_those_side_by_side(kind):
    # Two lists under three completions each; the six rows share the history of their list.
    torch.manual_seed(2)
    items, texts, match = torch.randn(2, LIST_LEN, 5), torch.randn(2, 3, 2), torch.randn(2, 3, LIST_LEN, 2)
    is_item = batch()[1][:2]
    backbone = backbone_of(kind)
    history = tuple(part[:2] for part in backbone.history)
    parts = ListBatch(items, is_item, texts, match, *history)
    features = parts.features()
    assert features.shape == (6, LIST_LEN, WIDTH) == (6, parts.list_len, parts.width)
    torch.testing.assert_close(features[4, 3], torch.cat([items[1, 3], texts[1, 1], match[1, 1, 3]]))
    repeated = tuple(part.repeat_interleave(3, dim=0) for part in history)
    dense = ListBatch(features, is_item.repeat_interleave(3, dim=0), None, None, *repeated)
    assert torch.equal(parts.is_item_XL, dense.is_item_BL)
    torch.testing.assert_close(backbone.module(parts)[parts.is_item_XL], backbone.module(dense)[parts.is_item_XL])
