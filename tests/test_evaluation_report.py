"""The report and the LaTeX table: complete, escaped, self-contained, and drawn to scale."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from made_up_report import CONTRASTS, EVIL_TITLE, LEVELS, METRICS, made_up_report
from page_sentences import long_sentences
from recloop.errors import DataError, SettingError
from recloop.evaluation import charts, labels
from recloop.evaluation.glossary import GLOSSARY, linked
from recloop.evaluation.labels import VariantKind, VariantLabel, in_table_order, variant_label
from recloop.evaluation.report import render_report, write_report
from recloop.evaluation.report_sections import (
    Chart,
    Charts,
    Costs,
    Curve,
    Facts,
    ListView,
    MainTable,
    PlainTable,
    Report,
    RewardSummary,
    Section,
    UserView,
    Verdicts,
    Worth,
)
from recloop.evaluation.significance import Estimate
from recloop.evaluation.tables import OTHERS_IN_LATEX, TableSettings, VariantTable, latex_table, make_table

VOID = {"meta", "br", "hr", "img", "input", "link"}


@pytest.fixture(scope="module")
def study() -> Report:
    return made_up_report(3)


@pytest.fixture(scope="module")
def page(study: Report) -> str:
    return render_report(study)


@pytest.fixture(scope="module")
def table(study: Report) -> VariantTable:
    return next(part.table for section in study.sections for part in section.parts if isinstance(part, MainTable))


def with_parts(study: Report, change) -> Report:
    """The report with every part passed through a function; None drops it."""
    sections = tuple(
        replace(section, parts=tuple(new for part in section.parts if (new := change(part)) is not None))
        for section in study.sections
    )
    return replace(study, sections=sections)


class Balance(HTMLParser):
    """Every element is closed in order; collects tags, attributes and the text outside style sheets."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)


def parse(page: str) -> Balance:
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def words_of(page: str) -> str:
    return " ".join(" ".join(parse(page).texts).split())


@pytest.mark.slow
def test_every_variant_contrast_and_metric_is_there(table: VariantTable, page: str) -> None:
    text = words_of(page)
    for name, estimate in table.main.estimates.items():
        assert table.labels[name].label in text
        assert table.labels[name].sentence in text
        assert labels.number(estimate.value) in text
    for contrast in table.main.contrasts:
        assert labels.signed(contrast.difference.value) in text
    for metric in METRICS:
        assert labels.metric_title(metric) in text
        assert labels.metric_meaning(metric) in text
    assert set(table.main.estimates) == set(LEVELS)
    assert [(c.name, c.against) for c in table.main.contrasts] == CONTRASTS


def test_conventions_are_said(page: str) -> None:
    text = words_of(page)
    assert "User mean (every user weighs the same) over 400 test users with 3,600 lists" in text
    assert "lists without a liked item are left out; 3 seeds" in text
    assert "corrected by Holm for all 10 lines" in text


@pytest.mark.slow
def test_single_seed_is_a_demonstration(page: str) -> None:
    single = words_of(render_report(made_up_report(1)))
    assert "Verdict Demonstration, not evidence One seed is a demonstration , not evidence" in single
    assert "beats" not in single
    assert "Demonstration" not in words_of(page)
    assert "On this log the trained text beats the untuned one by .013 NDCG@5 [.009, .017]." in words_of(page)


def test_the_verdict_stands_first_and_the_rest_is_folded(study: Report, page: str) -> None:
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>|<summary>(.*?)</summary>", page)
    titles = [one or other for one, other in headings]
    assert titles[:3] == ["Verdict", "Is it worth it", "Everything else"]
    assert titles[-1] == "What the words mean"
    folded = [section.title for section in study.sections if not section.is_open]
    assert titles[3:-1] == folded
    assert page.count("<details>") == len(folded)
    assert "details::details-content { content-visibility: visible;" in page.split("@media print")[1]


def test_the_figure_ranks_what_the_table_tests(table: VariantTable, page: str) -> None:
    drawn = ElementTree.fromstring(
        page[(start := page.index('<svg class="ranking"')) : page.index("</svg>", start) + 6]
    )
    names = [text.text for text in drawn.iter("text") if text.get("class") == "name"]
    tested = {
        c.against if c.name == "trained" else c.name for c in table.main.contrasts if "trained" in (c.name, c.against)
    }
    expected = sorted(("trained", *tested), key=lambda name: -table.main.estimates[name].value)
    assert names == [table.labels[name].label for name in expected]
    at = [float(dot.get("cx")) for dot in drawn.iter("circle")]
    assert at == sorted(at, reverse=True)
    assert "chance" not in drawn.get("aria-label")


def test_chance_is_a_line_of_the_figure(table: VariantTable) -> None:
    rows = [charts.RankedEstimate("a", Estimate(0.5, 0.4, 0.6, ()), ".500", "other")]
    svg = ElementTree.fromstring(charts.ranking(rows, 0.3, "chance .300", "HR@1"))
    (line,) = svg.findall("line[@class='chance']")
    bar, dot = svg.find("g/rect"), svg.find("g/circle")
    per_unit = float(bar.get("width")) / 0.2  # of the interval from .4 to .6
    assert float(dot.get("cx")) - float(line.get("x1")) == pytest.approx(0.2 * per_unit, abs=0.2)
    assert ElementTree.fromstring(charts.ranking(rows, None, "", "HR@1")).find("line[@class='chance']") is None


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_sentences_are_short(num_seeds: int) -> None:
    assert long_sentences(render_report(made_up_report(num_seeds))) == []
    written = [one.meaning for one in GLOSSARY] + [one.sentence for one in labels.LABELS.values()]
    assert long_sentences("".join(f"<p>{one}</p>" for one in written)) == []


def test_words_are_linked_once_and_to_their_line(page: str) -> None:
    assert linked("a seed & seeds") == 'a <a class="term" href="#word-seed">seed</a> &amp; seeds'
    assert linked("<b>unseeded</b>") == "&lt;b&gt;unseeded&lt;/b&gt;"
    assert len({one.anchor for one in GLOSSARY}) == len(GLOSSARY)
    shown = set(re.findall(r'<dt id="(word-[^"]*)"', page))
    assert {"word-interval", "word-training-on-random-labels", "word-holm"} <= shown
    assert "word-hint" not in shown  # no text of this page speaks of hints


def test_foreign_text_is_escaped(study: Report, page: str) -> None:
    evil = '"><script>alert(1)</script>'

    def spoil(part):
        match part:
            case UserView() | ListView():
                return replace(part, user=evil)
            case Charts():
                return Charts((Chart(evil, evil, evil, (Curve(evil, (1.0, 2.0), (0.1, 0.2)),)),))
            case Facts():
                return Facts(((evil, evil),))
            case Verdicts():
                return Verdicts(tuple(replace(one, title=evil, sentences=(evil,)) for one in part.verdicts) * 2)
            case Worth():
                spoilt = {name: replace(one, label=evil, sentence=evil) for name, one in part.table.labels.items()}
                return replace(part, table=replace(part.table, title=evil, labels=spoilt))
            case Costs():
                return Costs(tuple(replace(cost, verb=evil) for cost in part.costs))
            case MainTable():
                spoilt = {name: replace(one, label=evil, sentence=evil) for name, one in part.table.labels.items()}
                return MainTable(replace(part.table, title=evil, labels=spoilt))
        return part

    everywhere = replace(with_parts(study, spoil), title=evil, summary=evil, versions={evil: evil})
    extra = Section("extra", evil, (PlainTable(evil, (evil,), ((evil,),)),))
    everywhere = replace(everywhere, sections=(*everywhere.sections, extra))
    for rendered in (page, render_report(everywhere)):
        assert not any(tag == "script" for tag, _ in parse(rendered).seen)
    assert EVIL_TITLE in words_of(page)


def test_page_asks_for_nothing(page: str) -> None:
    outside = re.sub(r"http-equiv", "", page)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<link|<img|<iframe|<script", outside)
    assert all(attrs["href"].startswith("#") for tag, attrs in parse(page).seen if tag == "a")
    targets = {attrs["id"] for _, attrs in parse(page).seen if "id" in attrs}
    assert {attrs["href"][1:] for tag, attrs in parse(page).seen if tag == "a"} <= targets


def test_empty_sections_disappear(study: Report) -> None:
    gone = (Charts, RewardSummary, UserView, ListView, Costs)
    text = words_of(render_report(with_parts(study, lambda part: None if isinstance(part, gone) else part)))
    for heading in ("Rewards", "Learning curves", "What the language model wrote", "Lists before", "Cost"):
        assert heading not in text
    assert "Differences" in text


def test_noise_is_warned_of(study: Report, page: str) -> None:
    def make_noisy(part):
        is_summary = isinstance(part, RewardSummary)
        return replace(part, reliability=replace(part.reliability, low=-0.02)) if is_summary else part

    assert "repair the reward" in words_of(render_report(with_parts(study, make_noisy)))
    assert "repair the reward" not in words_of(page)


def test_rewards_of_a_function_have_no_reliability_and_their_own_name(study: Report) -> None:
    def by_function(part):
        match part:
            case RewardSummary():
                return replace(part, reliability=None, rewards=replace(part.rewards, metric="my_rewards.length"))
            case UserView():
                return replace(part, metric="my_rewards.length")
        return part

    text = words_of(render_report(with_parts(study, by_function)))
    assert "rewarded by my_rewards.length" in text
    assert "reliability" not in text


def test_missing_labels_and_unknown_references_are_refused(table: VariantTable) -> None:
    own = replace(table.scores[0], name="mine")
    settings = TableSettings(METRICS[:1], METRICS[0], table.main.config, 0)
    with pytest.raises(SettingError, match="got none for mine"):
        make_table("t", [own], [], settings, "mine")
    mine = VariantLabel("mine", "Mine", "What I made.", VariantKind.METHOD)
    made = make_table("t", [own, table.scores[1]], [], replace(settings, own_labels=(mine,)), "mine")
    assert made.labels["mine"].label == "Mine"
    with pytest.raises(SettingError, match="no variant 'nobody'"):
        replace(table, reference="nobody")


def test_variants_after_rounds_and_under_the_reward_model_have_labels() -> None:
    assert variant_label("trained_r2").label == "Trained, round 2"
    assert variant_label("trained_r2").name == "trained_r2"
    rewarded = variant_label("reward_model_trained")
    assert (rewarded.label, rewarded.kind) == ("Reward model: Trained", VariantKind.REWARD_MODEL)
    assert rewarded.sentence.startswith("The frozen reward model reads: texts of the language model")
    names = ["reward_model_untuned", "trained", "trained_r1", "untuned", "best_of_n", "shuffled", "no_text"]
    assert in_table_order(names) == [
        *("no_text", "shuffled", "untuned", "trained", "trained_r1", "best_of_n", "reward_model_untuned"),
    ]


def test_report_is_written_as_utf8(study: Report, page: str, tmp_path: Path) -> None:
    assert write_report(tmp_path, study).read_bytes().decode("utf-8") == page


# Charts


def test_interval_is_drawn_to_scale() -> None:
    scale = charts.Scale(0.0, 1.0, 0.0, 220.0)
    svg = ElementTree.fromstring(charts.interval(Estimate(0.5, 0.25, 0.75, (0.4, 0.6)), scale, 0.1, "method"))
    bar, dot = svg.find("rect[@class='bar']"), svg.find("circle")
    assert (float(bar.get("x")), float(bar.get("width"))) == (55.0, 110.0)
    assert float(dot.get("cx")) == 110.0
    assert [float(line.get("x1")) for line in svg.findall("line[@class='seed']")] == [88.0, 132.0]
    assert float(svg.find("line[@class='guide']").get("x1")) == 22.0


def test_histogram_columns_hold_every_value() -> None:
    values = np.random.default_rng(0).random(1_000)
    svg = ElementTree.fromstring(charts.histogram(values, "x", "y"))
    heights = np.array([float(rect.get("height")) for rect in svg.findall("rect")])
    counts = np.histogram(values, 24, (values.min(), values.max()))[0]
    np.testing.assert_allclose(heights / heights.max(), counts / counts.max(), atol=0.01)
    assert charts.histogram(np.ones(5), "x", "y")  # one value everywhere


def test_lines_go_through_their_points() -> None:
    curve = Curve("a", (0.0, 10.0, 20.0), (1.0, 3.0, 2.0))
    svg = ElementTree.fromstring(charts.line_chart(Chart("t", "x", "y", (curve,))))
    points = [tuple(map(float, p.split(","))) for p in svg.find("polyline").get("points").split()]
    assert points[1][0] == pytest.approx((points[0][0] + points[2][0]) / 2)
    assert points[1][1] < points[2][1] < points[0][1]  # SVG counts downwards
    with pytest.raises(DataError, match="2 x and 1 y for 'a'"):
        Curve("a", (1.0, 2.0), (0.5,))
    with pytest.raises(DataError, match="as many finite y"):
        Curve("a", (1.0,), (float("nan"),))
    with pytest.raises(DataError, match="at least one curve"):
        Chart("t", "x", "y", ())
    flat = Chart("t", "x", "y", (Curve("a", (1.0,), (0.5,)),))
    assert ElementTree.fromstring(charts.line_chart(flat)) is not None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (-3, 3, [-2, 0, 2]),
        (0.641, 0.699, [0.65, 0.66, 0.67, 0.68, 0.69]),
        (0, 420, [0, 100, 200, 300, 400]),
        (-0.02, 0.04, [-0.02, 0, 0.02, 0.04]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high, 5) == pytest.approx(expected)


def test_there_are_always_some_ticks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        low = rng.normal() * 10.0 ** rng.integers(-4, 5)
        high = low + rng.random() * 10.0 ** rng.integers(-4, 5) + 1e-6
        assert 2 <= len(charts.ticks(low, high, 5)) <= 5


# Words, LaTeX


def test_numbers_read_as_papers_print_them() -> None:
    assert labels.signed(-0.01234) == "−0.0123"
    assert labels.p_value(0.00001) == "< 0.0001"
    assert labels.p_value(0.0312) == "0.0312"
    assert labels.p_value(0.5) == "0.50"
    assert labels.metric_title("map_kar@5") == "MAP-KAR@5"
    assert labels.metric_title("loglik") == "Log-likelihood"


def test_latex_has_a_line_per_variant_and_escapes(table: VariantTable) -> None:
    spoilt = {name: replace(one, label=f"{one.label} 50% & a_b") for name, one in table.labels.items()}
    text = latex_table(replace(table, labels=spoilt))
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == len(table.main.estimates)
    assert all(line.replace(r"\&", "").count("&") == 2 + OTHERS_IN_LATEX for line in body)
    assert body[0].startswith(r"No text 50\% \& a\_b & 0.6")
    assert r"Intervals: 95\% bootstrap over users." in text
