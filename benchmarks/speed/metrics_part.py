"""NDCG and MAP of many lists against pytrec_eval and ranx."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.bench import Bench
from benchmarks.speed.figures import Check, Figure, Findings, Growth, Side
from benchmarks.speed.measuring import growth_line, python_profile, race
from recloop.errors import SettingError
from recloop.rerankers.metrics import average_precision, ndcg

NUM_LISTS, LIST_LEN, K = 100_000, 10, 5
ALLOWED = 1e-5
NAMES = (f"ndcg_cut_{K}", f"map_cut_{K}")
RANX_SCRIPT = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
import ranx
arrays = np.load(sys.argv[1])
doc_BL = np.arange(arrays["scores"].size).reshape(arrays["scores"].shape).astype(str)
queries = [str(b) for b in range(len(doc_BL))]
def work():
    labels, scores = arrays["labels"].astype(int).tolist(), arrays["scores"].astype(float).tolist()
    qrels = ranx.Qrels.from_dict({q: dict(zip(d, l)) for q, d, l in zip(queries, doc_BL, labels)})
    run = ranx.Run.from_dict({q: dict(zip(d, s)) for q, d, s in zip(queries, doc_BL, scores)})
    start_s = time.perf_counter()
    found = ranx.evaluate(qrels, run, ["ndcg@5", "map@5"], return_mean=False, make_comparable=False)
    return time.perf_counter() - start_s, found
work()
walls, evaluations = [], []
for _ in range(int(sys.argv[2])):
    start_s = time.perf_counter()
    evaluation_s, found = work()
    walls.append(time.perf_counter() - start_s)
    evaluations.append(evaluation_s)
means = [float(np.mean(found["ndcg@5"])), float(np.mean(found["map@5"]))]
from importlib.metadata import version
print(json.dumps({"walls": walls, "evaluations": evaluations, "means": means, "version": version("ranx")}))
"""

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def measure(bench: Bench) -> Findings:
    """Time both from the same arrays to one value per list."""
    num_lists = bench.amount(NUM_LISTS, 200)
    arrays = random_lists(num_lists, LIST_LEN, seed=0)
    run, qrels = trec_dicts(arrays)
    figures: list[Figure] = []
    with bench.progress.stage("metrics", 2 * bench.repetitions, "repetitions") as step:
        ours = ("recloop.rerankers.metrics", num_lists, lambda: our_values(arrays))
        for name, work in (
            ("pytrec_eval, from arrays", lambda: trec_values(*trec_dicts(arrays))),
            ("pytrec_eval, dictionaries made before", lambda: trec_values(run, qrels)),
        ):
            found = race(ours, (name, num_lists, work), bench.repetitions, step)
            figures.append(_against_trec(found.ours, found.against, found.our_result, found.their_result))
    if bench.config.ranx_python is not None:
        figures += _against_ranx(arrays, bench, bench.config.ranx_python)
    sizes = tuple(bench.amount(size, 50) for size in (10_000, 30_000, 100_000))
    lens = (5, 10, 30, 100)
    return Findings(
        figures=tuple(figures),
        growths=(
            _growth("lists", sizes, lambda size: random_lists(size, LIST_LEN, seed=1)),
            _growth("items in a list", lens, lambda n: random_lists(bench.amount(10_000, 50), n, seed=2)),
        ),
        profiles=(python_profile("NDCG and MAP of the lists", lambda: our_values(arrays)),),
        bound=(
            "One sort per list and metric decides the cost; all lists are sorted in one call of numpy. pytrec_eval "
            "needs a dictionary entry per item and sorts in C. Making the dictionaries is most of its cost, so the "
            "table has it with and without them."
        ),
    )


def random_lists(num_lists: int, list_len: int, seed: int) -> Arrays:
    """Scores, 0/1 labels and an all-true mask; every list has a positive."""
    rng = np.random.default_rng(seed)
    scores_BL = rng.permuted(np.tile(np.arange(list_len) / list_len, (num_lists, 1)), axis=1)
    labels_BL = (rng.random((num_lists, list_len)) < 0.25).astype(np.float32)
    labels_BL[:, 0] = np.maximum(labels_BL[:, 0], labels_BL.sum(axis=1) == 0)
    return scores_BL, labels_BL, np.ones(labels_BL.shape, dtype=np.bool_)


def our_values(arrays: Arrays) -> np.ndarray:
    """NDCG@5 and MAP@5 of every list, as two columns."""
    return np.stack([ndcg(*arrays, K), average_precision(*arrays, K, "all")], axis=1)


def trec_dicts(arrays: Arrays) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    """The run and the qrels as pytrec_eval takes them."""
    scores_BL, labels_BL, _ = arrays
    names = [f"d{place}" for place in range(scores_BL.shape[1])]
    rows = zip(scores_BL.tolist(), labels_BL.astype(int).tolist(), strict=True)
    run: dict[str, dict[str, float]] = {}
    qrels: dict[str, dict[str, int]] = {}
    for number, (scores, labels) in enumerate(rows):
        run[f"q{number}"] = dict(zip(names, scores, strict=True))
        qrels[f"q{number}"] = dict(zip(names, labels, strict=True))
    return run, qrels


def trec_values(run: dict[str, dict[str, float]], qrels: dict[str, dict[str, int]]) -> np.ndarray:
    """NDCG@5 and MAP@5 of every list by pytrec_eval, as two columns."""
    try:
        import pytrec_eval
    except ImportError as error:
        raise SettingError(
            "the part metrics compares with pytrec_eval, which is not installed; install recloop[test]"
        ) from error
    found: dict[str, dict[str, float]] = pytrec_eval.RelevanceEvaluator(qrels, set(NAMES)).evaluate(run)
    return np.array([[found[query][name] for name in NAMES] for query in run])


def _against_trec(ours: Side, theirs: Side, our_values: np.ndarray, their_values: np.ndarray) -> Figure:
    gap = float(np.abs(our_values - their_values).max())
    figure = Figure(
        name=f"NDCG@{K} and MAP@{K}",
        unit="lists",
        ours=ours,
        against=theirs,
        checks=(Check(what="largest difference of a list", value=gap, most=ALLOWED),),
    )
    return figure.with_ratio_target(8)


def _against_ranx(arrays: Arrays, bench: Bench, python: Path) -> list[Figure]:
    """Figures against ranx in its own process, compiled before, on the same lists; ours runs right after."""
    from benchmarks.speed.measuring import repeat

    file = bench.scratch / "lists.npz"
    np.savez(file, scores=arrays[0], labels=arrays[1])
    command = [str(python), "-c", RANX_SCRIPT, str(file), str(bench.repetitions)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    ours, values = repeat("recloop.rerankers.metrics", len(arrays[0]), lambda: our_values(arrays), bench.repetitions)
    gap = float(np.abs(values.mean(axis=0) - found["means"]).max())
    check = Check(what="largest difference of a mean", value=gap, most=ALLOWED)
    note = f"ranx {found['version']} in its own environment, compiled before the first repetition"
    return [
        Figure(
            name=f"NDCG@{K} and MAP@{K}",
            unit="lists",
            ours=ours,
            against=Side(name=name, amount=len(arrays[0]), wall_s=tuple(found[key])),
            checks=(check,),
            notes=(note,),
        ).with_ratio_target(10)
        for name, key in (("ranx, from arrays", "walls"), ("ranx, objects made before", "evaluations"))
    ]


def _growth(x_label: str, xs: tuple[int, ...], make: Any) -> Growth:
    def ours(x: int) -> Any:
        arrays = make(x)
        return lambda: our_values(arrays)

    def theirs(x: int) -> Any:
        arrays = make(x)
        return lambda: trec_values(*trec_dicts(arrays))

    return Growth(
        title=f"Metrics: cost by {x_label}",
        x_label=x_label,
        y_label="seconds",
        lines=(growth_line("recloop", xs, ours), growth_line("pytrec_eval", xs, theirs)),
    )
