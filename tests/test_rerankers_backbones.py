"""Properties every backbone has, and those by which they differ."""

import pytest
import torch

from recloop.errors import SettingError
from recloop.rerankers.backbones import AttentionBlock, Dlcm, Mir, Prm, SetRank
from recloop.rerankers.completion_inputs import CompletionInputs
from recloop.rerankers.config import RerankerConfig

WIDTH, TOKEN, LIST_LEN = 9, 8, 6
CONFIG = RerankerConfig(embed=TOKEN, attention=8, heads=2, gru=5, mlp=(7, 4))
KINDS = ["dlcm", "prm", "setrank", "mir"]


def backbone_of(kind):
    """A backbone as a function of inputs and mask; for MIR with fixed history tokens of three users."""
    torch.manual_seed(0)
    match kind:
        case "dlcm":
            return Dlcm(WIDTH, CONFIG).eval()
        case "prm":
            return Prm(WIDTH, LIST_LEN + 2, CONFIG).eval()
        case "setrank":
            return SetRank(WIDTH, CONFIG).eval()
        case "mir":
            mir, tokens = Mir(WIDTH, TOKEN, CONFIG).eval(), torch.randn(3, 4, TOKEN)
            is_token = torch.tensor([[True] * 4, [True, False, False, False], [True, True, False, False]])
            return lambda x, mask, rows=slice(None): mir(x, mask, tokens[rows], is_token[rows])


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
        extra = (rows,) if kind == "mir" else ()
        alone = backbone(x[rows], is_item[rows], *extra)
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
    out, final = backbone.gru(reversed_x)
    gated = out.flip(1) * torch.tanh(backbone.gate(final[0]))[:, None]
    expected = backbone.score(torch.cat([gated, x[2:3, :4]], dim=-1))
    torch.testing.assert_close(backbone(x, is_item)[2, :4], expected[0])


def test_attention_equals_its_formula():
    torch.manual_seed(0)
    block, (x, is_item) = AttentionBlock(8, 2), batch()
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
    mir, (x, is_item) = Mir(WIDTH, TOKEN, CONFIG).eval(), batch()
    tokens, is_token = torch.randn(3, 4, TOKEN), torch.ones(3, 4, dtype=torch.bool)
    scores = mir(x, is_item, tokens, is_token)
    for other in (tokens.flip(1), tokens + 1.0):
        assert (mir(x, is_item, other, is_token) - scores)[is_item].abs().max() > 1e-4


def test_mir_ignores_padding_of_the_history():
    torch.manual_seed(0)
    mir, (x, is_item) = Mir(WIDTH, TOKEN, CONFIG).eval(), batch()
    tokens = torch.randn(3, 4, TOKEN)
    is_token = torch.tensor([[True, True, False, False]] * 3)
    noisy = tokens.masked_fill(~is_token[..., None], 1e3)
    torch.testing.assert_close(mir(x, is_item, noisy, is_token), mir(x, is_item, tokens[:, :2], is_token[:, :2]))


def test_prm_refuses_lists_longer_than_its_positions():
    with pytest.raises(SettingError, match="at most 3 items, got 6"):
        Prm(WIDTH, 3, CONFIG)(*batch())


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(SettingError, match=r"multiple of heads, got 8 and 3; use e\.g\. 6"):
        AttentionBlock(8, 3)


@pytest.mark.parametrize("is_matched", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_in_parts_are_scored_as_those_side_by_side(kind, is_matched):
    # One list under three completions: MIR's fixed history has three rows.
    torch.manual_seed(2)
    widths = (5, 2, 2) if is_matched else (7, 2, 0)
    items, texts = torch.randn(1, LIST_LEN, widths[0]), torch.randn(1, 3, widths[1])
    inputs = CompletionInputs(items, texts, torch.randn(1, 3, LIST_LEN, 2) if is_matched else None)
    dense = inputs.dense()
    assert dense.shape == (3, LIST_LEN, WIDTH) == (3, inputs.num_places, inputs.width)
    torch.testing.assert_close(dense[1, 4, :-2], torch.cat([items[0, 4], texts[0, 1]])[: WIDTH - 2])
    backbone, (_, is_item) = backbone_of(kind), batch()
    together, apart = backbone(dense, is_item), backbone(inputs, is_item)
    torch.testing.assert_close(apart[is_item], together[is_item])
