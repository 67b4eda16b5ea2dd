"""The verdict: every outcome has its sentences, and none says more than its contrasts do."""

from dataclasses import replace

import pytest

from made_up_report import made_up_table
from page_sentences import MAX_WORDS
from recloop.evaluation.labels import LABELS, short
from recloop.evaluation.significance import ALPHA, MIN_SEEDS, Contrast, Estimate, Verdict
from recloop.evaluation.tables import results_json
from recloop.evaluation.verdict import Compared, Outcome, TrueShare, verdict_of, verdict_text, verdicts

CLEAR, NONE, LOSS = (0.024, 0.019, 0.028), (0.001, -0.003, 0.005), (-0.010, -0.014, -0.006)


def contrast(against, numbers, name="trained", num_seeds=3, p_holm=None):
    """By the rules of `compare`, with seeds that all are the mean."""
    value, low, high = numbers
    p_holm = (0.001 if low > 0 or high < 0 else 0.5) if p_holm is None else p_holm
    shown = Verdict.BETTER if value > 0 else Verdict.WORSE
    verdict = shown if p_holm <= ALPHA else Verdict.NOT_SHOWN
    verdict = verdict if num_seeds >= MIN_SEEDS else Verdict.TOO_FEW_SEEDS
    return Contrast(name, against, Estimate(value, low, high, (value,) * num_seeds), p_holm, p_holm, verdict)


def table_of(*contrasts, **others):
    names = {name for one in contrasts for name in (one.name, one.against)}
    values = {name: 0.6 for name in LABELS if name in names}
    labels = {name: LABELS[name].label for name in names}
    num_seeds = max(one.num_seeds for one in contrasts)
    return Compared("NDCG@5", contrasts, values, labels, num_seeds, **others)


def told(*contrasts, **others):
    found = verdict_of(table_of(*contrasts, **others))
    return found.outcome, " ".join(found.sentences)


def shares(trained, untuned, num_texts=1_000):
    return {"trained": TrueShare(trained, num_texts), "untuned": TrueShare(untuned, num_texts)}


RANDOM = contrast("random_label_dpo", CLEAR)
GAIN = (contrast("untuned", CLEAR), RANDOM)
BEATS = "On this log the trained text beats the untuned one by .024 NDCG@5 [.019, .028]."
ABOVE = BEATS.replace("beats", "is above")
FROM_FEEDBACK = "It also beats training on random labels by .024 [.019, .028], so the gain comes from the feedback."
NOTHING_ELSE = "What needs no language model was not run: it may do as well."


@pytest.mark.parametrize(
    ("given", "outcome", "sentences"),
    [
        pytest.param(
            (*GAIN, contrast("id_history", LOSS)),
            Outcome.GAIN,
            f"{BEATS} {FROM_FEEDBACK} It is below a reranker that reads the history as IDs by .010 [.006, .014]: "
            "use it where there is none, or for its words.",
            id="a gain, below ID history",
        ),
        pytest.param(
            (*GAIN, contrast("id_history", LOSS), contrast("best_template", (-0.02, -0.03, -0.01)),
             contrast("rating_mean", NONE), contrast("no_text", CLEAR)),
            Outcome.GAIN,
            f"{BEATS} {FROM_FEEDBACK} It is below a summary by a fixed rule by .020 [.010, .030]: the rule writes as "
            "useful a text and needs no model. It is also below ID history. It is not told apart from "
            "Rating-weighted items. It beats No text.",
            id="the strongest baseline first, all others by name",
        ),
        pytest.param(
            (*GAIN, contrast("no_text", (0.03, 0.02, 0.04)), contrast("best_template", CLEAR)),
            Outcome.GAIN,
            f"{BEATS} {FROM_FEEDBACK} It beats all that needs no language model and was run; nearest is Best fixed "
            "template, by .024 [.019, .028].",
            id="above everything",
        ),
        pytest.param(GAIN, Outcome.GAIN, f"{BEATS} {FROM_FEEDBACK} {NOTHING_ELSE}", id="no baseline was run"),
        pytest.param(
            (contrast("untuned", CLEAR), contrast("no_text", CLEAR)),
            Outcome.IN_DOUBT,
            f"{ABOVE} Training on random labels was not run: the gain may not come from the feedback. It beats all "
            "that needs no language model and was run; nearest is No text, by .024 [.019, .028].",
            id="random labels are missing",
        ),
        pytest.param(
            (contrast("untuned", CLEAR), contrast("random_label_dpo", NONE), contrast("no_text", NONE)),
            Outcome.IN_DOUBT,
            f"{ABOVE} It does not beat training on random labels (+.001 [−.003, .005]): the gain may not come from the "
            "feedback. It is not told apart from No text.",
            id="not above random labels",
        ),
        pytest.param(
            (contrast("untuned", CLEAR), contrast("random_label_dpo", LOSS), contrast("no_text", NONE)),
            Outcome.IN_DOUBT,
            f"{ABOVE} It is below training on random labels by .010 [.006, .014]: the gain may not come from the "
            "feedback. It is not told apart from No text.",
            id="below random labels",
        ),
        *(
            pytest.param(
                (*GAIN, contrast("id_history", LOSS), contrast("id_history", numbers, "trained_beside_ids")),
                Outcome.GAIN,
                f"{BEATS} {FROM_FEEDBACK} It is below a reranker that reads the history as IDs by .010 [.006, .014]: "
                f"use it where there is none, or for its words. {beside}",
                id=f"beside the IDs it {beside[22:27]}",
            )
            for numbers, beside in (
                (CLEAR, "Read beside the IDs it adds .024 [.019, .028] to them."),
                (LOSS, "Read beside the IDs it takes .010 [.006, .014] from them."),
                (NONE, "Read beside the IDs it adds nothing that can be told apart (+.001 [−.003, .005])."),
            )
        ),
        pytest.param(
            (*GAIN, contrast("shuffled", NONE), contrast("no_text", NONE)),
            Outcome.IN_DOUBT,
            f"{ABOVE} It does not beat the texts of other users (+.001 [−.003, .005]): the gain may not come from what "
            "is said of the user. It is not told apart from No text.",
            id="other users' texts do as well",
        ),
        pytest.param(
            (contrast("untuned", NONE), contrast("random_label_dpo", LOSS), contrast("no_text", CLEAR)),
            Outcome.NO_EFFECT,
            "On this log no effect is shown: the trained text scores +.001 NDCG@5 [−.003, .005] against the untuned "
            "one. It beats all that needs no language model and was run; nearest is No text, by .024 [.019, .028].",
            id="the interval holds 0",
        ),
        pytest.param(
            (contrast("untuned", CLEAR, p_holm=0.08), contrast("no_text", CLEAR)),
            Outcome.NO_EFFECT,
            "On this log no effect is shown (p 0.0800 after Holm): the trained text scores +.024 NDCG@5 [.019, .028] "
            "against the untuned one. It beats all that needs no language model and was run; nearest is No text, by "
            ".024 [.019, .028].",
            id="Holm's correction takes it away",
        ),
        pytest.param(
            (contrast("untuned", LOSS), contrast("no_text", LOSS)),
            Outcome.HARM,
            "On this log the trained text is below the untuned one by .010 NDCG@5 [.006, .014]. It is below the "
            "reranker without text by .010 [.006, .014]: leave the text out.",
            id="training did harm",
        ),
        pytest.param(
            [contrast(name, numbers, num_seeds=1) for name, numbers in
             (("untuned", CLEAR), ("random_label_dpo", CLEAR), ("no_text", CLEAR), ("id_history", LOSS))],
            Outcome.TOO_FEW,
            "One seed is a demonstration, not evidence: a second seed can turn any difference around. Here the "
            "trained text is above the untuned one by .024 NDCG@5 [.019, .028]. It is also above training on random "
            "labels by .024 [.019, .028]. It is below a reranker that reads the history as IDs by .010 [.006, .014]: "
            "use it where there is none, or for its words. It is above No text.",
            id="one seed",
        ),
        pytest.param(
            (contrast("untuned", NONE, num_seeds=2), contrast("no_text", NONE, num_seeds=2)),
            Outcome.TOO_FEW,
            "2 seeds are a demonstration, not evidence: a claim needs at least 3. Here no effect is shown: the trained "
            "text scores +.001 NDCG@5 [−.003, .005] against the untuned one. It is not told apart from No text.",
            id="two seeds",
        ),
        pytest.param(
            (contrast("no_hint", CLEAR, "ppo", 1), contrast("best_single", CLEAR, "ppo"),
             contrast("popularity", CLEAR, "ppo")),
            Outcome.TOO_FEW,
            "Every seed gave the same numbers, so they count as one: this is a demonstration, not evidence. Here a "
            "hint chosen for each session is above no hint by .024 NDCG@5 [.019, .028]. It also beats one hint for all "
            "sessions by .024 [.019, .028], so choosing matters. It beats all that needs no language model and was "
            "run; nearest is Popularity, by .024 [.019, .028].",
            id="no seed moves it",
        ),
        pytest.param(
            (contrast("base_model", CLEAR, "rerec"), contrast("grpo_ndcg", NONE, "rerec")),
            Outcome.IN_DOUBT,
            "On this log ReRec is above the model before training by .024 NDCG@5 [.019, .028]. It does not beat GRPO "
            f"by rank and format alone (+.001 [−.003, .005]): what ReRec adds may not help. {NOTHING_ELSE}",
            id="ReRec adds nothing",
        ),
        pytest.param(
            (contrast("no_text", CLEAR, "id_history"), contrast("popularity", CLEAR, "id_history")),
            Outcome.GAIN,
            "On this log ID history beats the reranker without it by .024 NDCG@5 [.019, .028]. It beats Popularity.",
            id="without a language model",
        ),
        pytest.param(
            (contrast("supervised", CLEAR, "grpo_ndcg"),),
            Outcome.GAIN,
            "On this log GRPO, NDCG only beats Supervised by .024 NDCG@5 [.019, .028].",
            id="a subject without words of its own",
        ),
        pytest.param(
            (contrast("shuffled", CLEAR),),
            Outcome.IN_DOUBT,
            "On this log the trained text is above Shuffled by .024 NDCG@5 [.019, .028]. Training on random labels was "
            f"not run: the gain may not come from the feedback. {NOTHING_ELSE}",
            id="the base is missing",
        ),
    ],
)  # fmt: skip
def test_every_outcome_has_its_sentences(given, outcome, sentences):
    assert told(*given) == (outcome, sentences)


def test_seeds_that_disagree_are_no_effect():
    main = contrast("untuned", CLEAR)
    unlike = replace(main, difference=replace(main.difference, by_seed=(0.06, 0.02, -0.008)), verdict=Verdict.NOT_SHOWN)
    outcome, text = told(unlike, RANDOM)
    assert outcome is Outcome.NO_EFFECT
    assert "no effect is shown (seeds disagree)" in text


@pytest.mark.parametrize(
    ("truth", "outcome", "sentence"),
    [
        (shares(0.80, 0.88), Outcome.IN_DOUBT,
         "Fewer of its statements are true (80%, 88% before), so this is not called a gain."),
        (shares(0.87, 0.88), Outcome.GAIN, "Its statements are as often true (87%, 88% before)."),
        (shares(0.80, 0.88, num_texts=20), Outcome.GAIN, "Its statements are as often true (80%, 88% before)."),
        (shares(0.95, 0.88), Outcome.GAIN, "More of its statements are true (95%, 88% before)."),
        ({}, Outcome.GAIN, ""),
    ],
)  # fmt: skip
def test_a_gain_with_more_untruth_is_not_called_one(truth, outcome, sentence):
    """80% against 88% of 1,000 texts: the standard error is sqrt(.16/1000 + .1056/1000) = .0163, 1.96 of it .032."""
    found, text = told(*GAIN, truth=truth)
    assert found is outcome
    assert sentence in text
    assert ("beats the untuned one" in text) == (outcome is Outcome.GAIN)
    assert ("statements" in text) == bool(truth)


def test_more_untruth_is_said_where_there_is_no_gain_too():
    assert (
        "Fewer of its statements are true (80%, 88% before)."
        in told(contrast("untuned", NONE), RANDOM, truth=shares(0.80, 0.88))[1]
    )


def test_below_chance_is_no_gain():
    outcome, text = told(*GAIN, chance=0.7)
    assert outcome is Outcome.IN_DOUBT
    assert "It is below chance (.700): the difference says nothing of taste." in text
    assert "chance" not in told(*GAIN, chance=0.5)[1]


def test_a_contrast_tested_the_other_way_round_says_the_same():
    turned = contrast("trained", (0.010, 0.006, 0.014), name="history_text")
    assert "It is below the history itself as text by .010 [.006, .014]" in told(*GAIN, turned)[1]


def test_no_sentence_is_long_however_much_there_is_to_say():
    others = [name for name, one in LABELS.items() if name not in ("trained", "untuned", "chance")]
    for numbers in (CLEAR, NONE, LOSS):
        for subject, base in (
            ("trained", "untuned"),
            ("id_history", "no_text"),
            ("ppo", "no_hint"),
            ("rerec", "base_model"),
        ):
            rest = [contrast(name, numbers, subject) for name in others if name not in (subject, base)]
            for main in (contrast(base, CLEAR, subject), contrast(base, CLEAR, subject, p_holm=0.08)):
                for sentence in verdict_of(table_of(main, *rest)).sentences:
                    assert len(sentence.split()) <= MAX_WORDS, sentence


def test_results_json_gives_the_same_verdict_as_its_tables():
    table = made_up_table(3, num_users=60)
    shares = {"untuned": 0.86, "trained": 0.5, "supervised": None}
    truth = {name: {"num_texts": 400, "true": share, "titles_true": 0.9} for name, share in shares.items()}
    (found,) = verdicts(results_json([table], truth))
    assert (found.title, found.subject) == (table.title, "trained")
    by_name = {one.against: one for one in table.main.contrasts if one.name == "trained"}
    assert {one.against: one for one in found.contrasts if one.against != "history_text"} == by_name
    assert f"scores {short(by_name['untuned'].difference.value, sign=True)} NDCG@5 [" in found.sentences[0]
    assert "Fewer of its statements are true (50%, 86% before)" in " ".join(found.sentences)
    of_titles = {name: one | {"true": None} for name, one in truth.items()}
    assert "Its statements are as often true (90%, 90% before)." in verdict_text(results_json([table], of_titles))
    two = verdict_text(results_json([table, replace(table, title="MIR")])).split("\n\n")
    assert [text.partition(". ")[0] for text in two] == ["PRM, one new evaluator per variant", "MIR"]
    untested = replace(table, main=replace(table.main, contrasts=()))
    assert (
        verdict_text(results_json([untested])) == "No variants were tested against each other, so there is no verdict."
    )
