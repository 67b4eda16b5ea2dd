"""The report and the LaTeX table: complete, escaped, self-contained, and drawn to scale."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from made_up_report import CONTRASTS, EVIL_TITLE, LEVELS, METRICS, made_up_report
from recloop.errors import DataError, SettingError
from recloop.evaluation import charts
from recloop.evaluation import labels as wording
from recloop.evaluation.latex import latex_table
from recloop.evaluation.report import render_report, write_report
from recloop.evaluation.report_sections import Chart, Curve, ReportData
from recloop.evaluation.significance import Estimate

VOID = {"meta", "br", "hr", "img", "input", "link"}


@pytest.fixture(scope="module")
def study() -> ReportData:
    return made_up_report(3)


@pytest.fixture(scope="module")
def page(study: ReportData) -> str:
    return render_report(study)


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


def test_every_row_contrast_and_metric_is_there(study: ReportData, page: str) -> None:
    text = words_of(page)
    table = study.tables[0].main
    for row in table.rows:
        assert study.words[row.name].title in text
        assert study.words[row.name].sentence in text
        assert wording.number(row.estimate.value) in text
    for contrast in table.contrasts:
        assert wording.signed(contrast.difference.value) in text
    for metric in METRICS:
        assert wording.metric_title(metric) in text
        assert wording.metric_meaning(metric) in text
    assert {row.name for row in table.rows} == set(LEVELS)
    assert [(c.name, c.against) for c in table.contrasts] == CONTRASTS


def test_conventions_are_said(page: str) -> None:
    text = words_of(page)
    assert "User mean (every user weighs the same) over 400 test users with 3,600 lists" in text
    assert "lists without a liked item are left out; 3 seeds" in text
    assert "corrected by Holm for all 10 lines" in text


def test_single_seed_is_a_demonstration(page: str) -> None:
    single = words_of(render_report(made_up_report(1)))
    assert "Demonstration: one seed" in single
    assert "Nothing on this page may be claimed" in single
    assert "is better than" not in single
    assert "Demonstration" not in words_of(page)
    assert "Trained is better than Random-label DPO" in words_of(page)


def test_foreign_text_is_escaped(study: ReportData, page: str) -> None:
    evil = '"><script>alert(1)</script>'
    everywhere = replace(
        study,
        title=evil,
        summary=evil,
        facts=((evil, evil),),
        words={name: replace(row, title=evil, sentence=evil) for name, row in study.words.items()},
        fits=(Chart(evil, evil, evil, (Curve(evil, (1.0, 2.0), (0.1, 0.2)),)),),
        users=tuple(replace(user, user=evil) for user in study.users),
        lists=tuple(replace(view, user=evil) for view in study.lists),
        costs=tuple(replace(cost, stage=evil) for cost in study.costs),
        versions=((evil, evil),),
    )
    for rendered in (page, render_report(everywhere)):
        assert not any(tag == "script" for tag, _ in parse(rendered).seen)
    assert EVIL_TITLE in words_of(page)


def test_page_asks_for_nothing(page: str) -> None:
    outside = re.sub(r"http-equiv", "", page)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<link|<img|<iframe|<script", outside)
    assert all(attrs["href"].startswith("#") for tag, attrs in parse(page).seen if tag == "a")
    targets = {attrs["id"] for _, attrs in parse(page).seen if "id" in attrs}
    assert {attrs["href"][1:] for tag, attrs in parse(page).seen if tag == "a"} <= targets


def test_empty_sections_disappear(study: ReportData) -> None:
    bare = replace(study, fits=(), rewards=(), training=(), users=(), lists=(), costs=())
    text = words_of(render_report(bare))
    for heading in ("Reward", "Learning curves", "What the language model wrote", "Lists before", "Cost"):
        assert heading not in text
    assert "Differences" in text


def test_noise_is_warned_of(study: ReportData, page: str) -> None:
    section = study.rewards[0]
    noisy = replace(section, reliability=replace(section.reliability, low=-0.02))
    assert "repair the reward" in words_of(render_report(replace(study, rewards=(noisy,))))
    assert "repair the reward" not in words_of(page)


def test_missing_words_and_unknown_reference_are_refused(study: ReportData) -> None:
    with pytest.raises(SettingError, match="got none for no_knowledge"):
        render_report(replace(study, words={k: v for k, v in study.words.items() if k != "no_text"}))
    with pytest.raises(SettingError, match="no row 'nobody'"):
        render_report(replace(study, tables=(replace(study.tables[0], reference="nobody"),)))


def test_report_is_written_as_utf8(study: ReportData, page: str, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", study)
    assert (tmp_path / "report.html").read_bytes().decode("utf-8") == page


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
    assert wording.signed(-0.01234) == "−0.0123"
    assert wording.p_value(0.00001) == "< 0.0001"
    assert wording.p_value(0.0312) == "0.0312"
    assert wording.p_value(0.5) == "0.50"
    assert wording.duration(3.24) == "3.2 s"
    assert wording.duration(59.97) == "60.0 s"
    assert wording.duration(125) == "2 min 05 s"
    assert wording.duration(7_320) == "2 h 02 min"
    assert wording.metric_title("map_kar@5") == "MAP-KAR@5"
    assert wording.metric_title("loglik") == "Log-likelihood"


def test_latex_has_a_line_per_row_and_escapes(study: ReportData) -> None:
    section = study.tables[0]
    words = {name: replace(row, title=f"{row.title} 50% & a_b") for name, row in study.words.items()}
    text = latex_table(section.main, words, section.others[:1])
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == len(section.main.rows)
    assert all(line.replace(r"\&", "").count("&") == 3 for line in body)
    assert body[0].startswith(r"No knowledge 50\% \& a\_b & 0.6")
    assert r"Intervals: 95\% bootstrap over users." in text
