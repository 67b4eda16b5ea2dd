import numpy as np
import pytest

torch = pytest.importorskip("torch")

from transformers import (  # noqa: E402
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from recloop.errors import GenerationError  # noqa: E402
from recloop.llm.decoding import ATTEMPTS, ExpandedPrefix, SharedPrefix, decode, sample_tokens  # noqa: E402
from recloop.llm.shared_prefix import share_heads  # noqa: E402

VOCAB = 50
SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}


def llama(num_kv_heads=4):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=num_kv_heads)).eval()


def qwen():
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(**SMALL, num_key_value_heads=2)).eval()


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCAB, n_embd=24, n_layer=2, n_head=4, n_positions=128, initializer_range=0.3)
    ).eval()


def random_prompts(num, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(2, VOCAB, rng.integers(1, 20)).tolist() for _ in range(num)]


def uniforms(num_prompts, num_completions, max_tokens, seed=0):
    return np.random.default_rng(seed).random((num_prompts, num_completions, max_tokens, ATTEMPTS))


MODELS = {
    "llama": (llama, SharedPrefix),
    "llama, grouped heads": (lambda: llama(2), SharedPrefix),
    "qwen2": (qwen, SharedPrefix),
    "llama, expanded": (llama, ExpandedPrefix),
    "gpt2, expanded": (gpt2, ExpandedPrefix),
}


def read(kind, model, prompts, num_completions, max_tokens):
    if kind is SharedPrefix:
        return SharedPrefix(model, prompts, num_completions, max_tokens)
    return ExpandedPrefix(model, prompts, num_completions)


@pytest.mark.parametrize("case", MODELS)
@torch.inference_mode()
def test_logits_equal_a_plain_forward_pass_over_prompt_and_completion(case):
    build, kind = MODELS[case]
    model, prompts, num_completions, max_tokens = build(), random_prompts(5), 3, 6
    rng = np.random.default_rng(1)
    prefix = read(kind, model, prompts, num_completions, max_tokens)
    grown = {(b, n): [] for b in range(5) for n in range(num_completions)}
    alive = sorted(grown)

    def plain(b, n):
        return model(torch.tensor([[*prompts[b], *grown[b, n]]])).logits[0, -1]

    first = torch.stack([plain(b, 0) for b in range(5)])
    assert (prefix.first_logits() - first).abs().max() < 1e-4
    for t in range(max_tokens - 1):
        # Completions leave at different times; at t = 2 whole prompts do, so that their rows are moved out.
        alive = [(b, n) for b, n in alive if not (rng.random() < 0.15 or (t == 2 and b in (0, 3)))]
        for key in alive:
            grown[key].append(int(rng.integers(2, VOCAB)))
        tokens, prompt, completion = (
            np.array(x) for x in zip(*[(grown[b, n][-1], b, n) for b, n in alive], strict=True)
        )
        expected = torch.stack([plain(b, n) for b, n in alive])
        assert (prefix.next_logits(tokens, prompt, completion) - expected).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("case", MODELS)
@torch.inference_mode()
def test_decode_equals_one_completion_at_a_time_without_a_cache(case):
    build, kind = MODELS[case]
    model, prompts, end_tokens = build(), random_prompts(6, seed=2), [1, 7, 13, 21, 33]
    uniforms_BNTA = uniforms(6, 4, 12)
    completions_BN = decode(read(kind, model, prompts, 4, 12), uniforms_BNTA, end_tokens, 0.8, 0.9)
    num_finished = 0
    for b, prompt in enumerate(prompts):
        for n, completion in enumerate(completions_BN[b]):
            tokens, logp, is_finished = slow_completion(model, prompt, uniforms_BNTA[b, n], end_tokens, 0.8, 0.9)
            assert completion.tokens == tuple(tokens)
            assert completion.is_finished == is_finished
            assert completion.logp_sum == pytest.approx(logp, abs=1e-4)
            num_finished += is_finished
    assert 4 < num_finished < 24  # both ends are exercised


def slow_completion(model, prompt, uniforms_TA, end_tokens, temperature, top_p):
    """Plain Python, float64, no cache: draw until the draw lies in the nucleus."""
    tokens, logp = [], 0.0
    for uniforms_A in uniforms_TA:
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, -1].double()
        probs = (logits / temperature).softmax(-1).tolist()
        for uniform in uniforms_A:
            token, below = 0, probs[0]
            while below <= uniform:
                token += 1
                below += probs[token]
            if sum(p for p in probs if p > probs[token]) < top_p:
                break
        else:
            raise AssertionError("unlucky at every attempt; choose another seed")
        logp += float(logits.log_softmax(-1)[token])
        if token in end_tokens:
            return tokens, logp, True
        tokens.append(token)
    return tokens, logp, False


@pytest.mark.slow
@torch.inference_mode()
def test_a_completion_is_the_same_whatever_batch_it_is_in():
    model, prompts = llama(), random_prompts(8, seed=3)
    uniforms_BNTA = uniforms(8, 5, 10, seed=3)
    together = decode(SharedPrefix(model, prompts, 5, 10), uniforms_BNTA, [1, 2, 3], 1.0, 0.95)
    for b in range(8):
        for n in (0, 3):
            only = uniforms_BNTA[b : b + 1, n : n + 1]
            alone = decode(SharedPrefix(model, prompts[b : b + 1], 1, 10), only, [1, 2, 3], 1.0, 0.95)[0][0]
            assert alone.tokens == together[b][n].tokens
            assert alone.logp_sum == pytest.approx(together[b][n].logp_sum, abs=1e-4)


@pytest.mark.parametrize("num_attempts", [1, 2, ATTEMPTS])
@pytest.mark.parametrize("top_p", [0.5, 0.75, 0.9, 1.0])
def test_tokens_come_as_often_as_the_nucleus_says(top_p, num_attempts):
    """Probabilities .4 .3 .2 .1 in another order; at top_p .5 the nucleus is {.4, .3}, at .75 and .9 it is
    {.4, .3, .2}, at 1 all. The last attempt draws from the sorted nucleus, so 1 attempt sorts every row when
    top_p < 1."""
    probs = np.array([0.1, 0.4, 0.2, 0.3])
    kept = {0.5: [1, 3], 0.75: [1, 2, 3], 0.9: [1, 2, 3], 1.0: [0, 1, 2, 3]}[top_p]
    expected = np.where(np.isin(np.arange(4), kept), probs, 0)
    expected /= expected.sum()
    rows = 40_000
    logits = torch.from_numpy(np.log(probs)).expand(rows, 4)
    tokens, logps = sample_tokens(logits, np.random.default_rng(0).random((rows, num_attempts)), 1.0, top_p)
    counts = np.bincount(tokens, minlength=4)
    assert (counts[expected == 0] == 0).all()
    assert np.abs(counts / rows - expected).max() < 4 * np.sqrt(0.25 / rows)
    assert np.allclose(logps, np.log(probs)[tokens], atol=1e-6)  # over the whole vocabulary, at temperature 1


def test_temperature_divides_the_logits_and_0_takes_the_largest():
    logits = torch.tensor([[0.0, 1.0, 3.0, 2.0]]).expand(20_000, 4)
    uniforms_RA = np.random.default_rng(0).random((20_000, 1))
    tokens, _ = sample_tokens(logits, uniforms_RA, 2.0, 1.0)
    expected = (logits[0] / 2).softmax(-1).numpy()
    assert np.abs(np.bincount(tokens, minlength=4) / 20_000 - expected).max() < 4 * np.sqrt(0.25 / 20_000)
    assert (sample_tokens(logits, uniforms_RA, 0.0, 1.0)[0] == 2).all()


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_a_token_of_probability_0_is_never_drawn(uniform):
    logits = torch.tensor([[-torch.inf, 1.0, 2.0, -torch.inf]])
    token, _ = sample_tokens(logits, np.full((1, ATTEMPTS), uniform), 1.0, 1.0)
    assert token[0] == (1 if uniform == 0 else 2)


def branching_prompts(seed=4):
    """Two heads of 40 and 31 tokens with tails of 1 to 7, one prompt alone, out of order."""
    rng = np.random.default_rng(seed)
    first, second, single = (rng.integers(2, VOCAB, num).tolist() for num in (40, 31, 12))
    tails = [rng.integers(2, VOCAB, num).tolist() for num in (1, 7, 3, 4, 2)]
    return [
        tuple(ids)
        for ids in (
            first + tails[0],
            second + tails[1],
            single,
            first + tails[2],
            second + tails[3],
            first + tails[4],
        )
    ]


@pytest.mark.slow
@pytest.mark.parametrize("build", [llama, lambda: llama(2), qwen])
@torch.inference_mode()
def test_prompts_that_begin_alike_share_a_row_and_come_to_the_same(build):
    model, prompts, end_tokens = build(), branching_prompts(), [1, 7, 13, 21, 33]
    heads = share_heads(prompts, 6)
    assert sorted(len(head.members) for head in heads) == [1, 2, 3]
    uniforms_BNTA = uniforms(6, 3, 8, seed=5)
    shared = decode(SharedPrefix(model, prompts, 3, 8, heads), uniforms_BNTA, end_tokens, 0.8, 0.9)
    num_finished = 0
    for b, prompt in enumerate(prompts):
        for n, completion in enumerate(shared[b]):
            tokens, logp, is_finished = slow_completion(model, prompt, uniforms_BNTA[b, n], end_tokens, 0.8, 0.9)
            assert completion.tokens == tuple(tokens)
            assert completion.logp_sum == pytest.approx(logp, abs=1e-4)
            num_finished += is_finished
    assert 4 < num_finished < 18  # whole rows end before others and are moved out


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_weights_that_are_no_numbers_are_one_error(temperature):
    logits_RV = torch.zeros(3, 11)
    logits_RV[1] = torch.nan
    with pytest.raises(GenerationError, match="got NaN; its weights hold some that are no numbers"):
        sample_tokens(logits_RV, np.full((3, ATTEMPTS), 0.5), temperature, 1.0)
