"""What the page says first: a line per log and language model."""

from __future__ import annotations

from collections.abc import Sequence

from recloop.methods.dpo4rec.compare import BASELINES_OF_TRAINED
from recloop.methods.dpo4rec.names import BEST_TEMPLATE, ID_HISTORY, RANDOM_LABELS, TRAINED, UNTUNED
from studies.evidence.labels import NOT_RUN, RANKERS, number, percent, table, verdict, with_interval
from studies.evidence.numbers import RunNumbers, TableNumbers
from studies.evidence.pooling import Evidence, pooled_contrasts, pooled_variants, pooled_writing, tables_of
from studies.evidence.sections import PRIMARY_METRIC, Part, backbones_of, main_results

ALPHA, MIN_FOLDS = 0.01, 3
ANSWERS = {"**holds**": "**yes**", "**does not hold**": "no"}  # of what a claim's table says
ABOUT = (
    f"{PRIMARY_METRIC} of test users. *Trained minus* a baseline is the mean over users; above 0 it speaks for the "
    "trained text. *Random labels* is the same training with better and worse dealt out by chance. *ID history* is a "
    "reranker that reads the ids of the history and no text. The *best template* is filled from the history and needs "
    "no training. *True* is the share of all claims that the history supports with their sign, before and after "
    "training. A gain that comes with less truth is not all gain; where it was asked, the next part has the gain with "
    "true texts alone. *Every fold* is about trained minus untuned. Two studies of one log have other users and "
    "settings, so compare within a row. *Lists of KAR* have drawn negatives, *retrieved lists* those of a retriever."
)
HEAD = (
    *("log and language model", "reranker", "untuned to trained", "trained minus untuned"),
    f"every fold, Holm p < {ALPHA}",
    *("minus random labels", "minus ID history", "minus best template", "true"),
)


def at_a_glance(evidence: Evidence) -> Part:
    """A line for each log, language model and evaluation reranker; published language models first."""
    rows = [
        _row(evidence, study, setting, results, ranker)
        for study, setting, results in (*main_results(evidence, "main"), *main_results(evidence, "external"))
        if evidence.studies[study].claims and results
        for ranker in backbones_of(results)
    ]
    return Part([ABOUT, "", *table(HEAD, rows, left=2)] if rows else [NOT_RUN])


def _row(evidence: Evidence, study: str, setting: str, results: Sequence[RunNumbers], ranker: str) -> list[str]:
    tables = tables_of(results, ranker)
    values = pooled_variants(tables, PRIMARY_METRIC)
    tested = {c.against: c for c in pooled_contrasts(tables, PRIMARY_METRIC, TRAINED, BASELINES_OF_TRAINED)}
    gain = tested.get(UNTUNED)
    told = verdict(gain, ALPHA, MIN_FOLDS)
    truth = {one.variant: one.skill.get("true") for one in pooled_writing(results)}
    before_after = [truth.get(name) for name in (UNTUNED, TRAINED)]
    return [
        _title(evidence, study, sum(one.num_users for one in tables)) if ranker == backbones_of(results)[0] else "",
        RANKERS[ranker],
        " to ".join(number(values[name].values.mean) for name in (UNTUNED, TRAINED) if name in values),
        "" if gain is None else with_interval(gain.difference.values),
        ANSWERS.get(told, told),
        *(
            _minus(tables, _of_all_variants(evidence, study, setting, ranker), name)
            for name in (RANDOM_LABELS, ID_HISTORY, BEST_TEMPLATE)
        ),
        " to ".join(percent(share) for share in before_after if share is not None),
    ]


def _title(evidence: Evidence, study: str, num_users: int) -> str:
    about = evidence.studies[study]
    return f"{about.title}{', bundled model' if about.has_bundled_lm else ''}, {num_users:,} users"


def _minus(own: Sequence[TableNumbers], of_all_variants: Sequence[TableNumbers], against: str) -> str:
    """From the study itself, else from the one that has all variants on its folds."""
    for tables in (own, of_all_variants):
        for contrast in pooled_contrasts(tables, PRIMARY_METRIC, TRAINED, (against,)) if tables else ():
            return with_interval(contrast.difference.values)
    return "not run"


def _of_all_variants(evidence: Evidence, study: str, setting: str, ranker: str) -> list[TableNumbers]:
    source = f"{study}.{setting}" if setting else study
    others = [name for name, about in evidence.studies.items() if about.reuses_from == source and not about.claims]
    results = [one for name in others if not evidence.studies[name].settings for one in evidence.of_study(name)]
    return tables_of(results, ranker)
