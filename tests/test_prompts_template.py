"""Templates: the built-in files against plain Python, files and objects of one's own, and errors with file and line."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from recloop.data.lists import candidate_lists
from recloop.data.load import load_log
from recloop.errors import ContractError, SettingError
from recloop.prompts.template import (
    BUILT_IN,
    MAX_CHARS,
    SYSTEM,
    ProfileFacts,
    PromptText,
    ShownItem,
    open_template,
    template_digest,
)
from recloop.prompts.user_profile import PromptConfig, profile_prompts


def made_up_facts(seed: int) -> ProfileFacts:
    rng = np.random.default_rng(seed)
    has_rating = seed % 3 > 0
    items = []
    for number in range(int(rng.integers(0, 12))):
        rating = float(rng.integers(2, 11)) / 2 if has_rating else None
        stars = "" if rating is None else f"{rating:g} stars | "
        values = {"genre": tuple(rng.choice(["Drama", "War"], rng.integers(0, 3)).tolist())}
        items.append(ShownItem(f"漢 & {number}", rating, values, f'{stars}"漢 & {number}" | <x>'))
    num_shown = int(rng.integers(0, len(items) + 1))
    ratings = [item.rating for item in items if item.rating is not None]
    return ProfileFacts(
        "films",
        ("genre", "era"),
        tuple(items),
        tuple(items[len(items) - num_shown :]),
        sum(ratings) / len(ratings) if ratings else None,
        ("Counted:", "By genre: likes Drama. (2)") if seed % 2 else (),
        {"age": "25-34", "job": "x"} if seed % 4 > 1 else {},
        "genre, plot",
    )


def header(noun: str, items, num_shown: int) -> str:
    ratings = [item.rating for item in items if item.rating is not None]
    average = f", average {sum(ratings) / len(ratings):.1f} stars" if ratings else ""
    shown = "" if num_shown == len(items) else f"; the last {num_shown}"
    return f"{len(items)} {noun}{average}{shown}, oldest first:"


def as_python(template: str, facts: ProfileFacts) -> str:
    """The built-in templates, written out."""
    told = [f"The user: {', '.join(f'{n} {v}' for n, v in facts.profile.items())}."] if facts.profile else []
    if template == "plain":
        items = [f'"{i.title}"' + ("" if i.rating is None else f", {i.rating:g} stars") for i in facts.shown]
        head = f"Given a user's {facts.noun} history over time, oldest first: {'; '.join(items) or 'nothing yet'}."
        task = f"Analyse the user's preferences (consider {facts.factors}), with clear explanations from the history."
        return "\n".join([head, *told, task])
    if template == "dpo4rec":
        items = [f'"{i.title}"' + ("" if i.rating is None else f", {i.rating:g} stars") + ";" for i in facts.shown]
        task = f"Summarise what the user prefers, factor by factor: {facts.factors}. "
        task += "Give examples from the history for each."
        head = f"The user's {facts.noun} over time, oldest first:"
        return "\n".join([*told, head, *(items or ["nothing yet"]), task])
    if template == "short":
        verb = "met" if facts.mean_rating is None else "rated"
        head, kinds = f"A person {verb} these {facts.noun}, oldest first:", ", ".join(facts.attributes) or "kinds"
        task = f"In two sentences, say which {kinds} of {facts.noun} this person likes and which they dislike."
        person = [line.replace("The user", "The person") for line in told]
        return "\n".join([head, *(item.line for item in facts.shown), *person, task])
    counted = template == "counted"
    items = facts.history if counted else facts.shown
    counts = facts.counts if counted else ()
    task = f"Analyse the preferences by {', '.join(facts.attributes)}: likes and dislikes."
    lines = [item.line for item in facts.shown]
    return "\n".join([header(facts.noun, items, len(lines)), *lines, *counts, *told, task])


SYSTEMS = {
    "short": "You describe people's taste.",
    "dpo4rec": "You are a helpful assistant that summarises and extracts user preferences, step by step.",
}


@pytest.mark.parametrize("template", BUILT_IN)
def test_built_in_templates_equal_plain_python(template: str) -> None:
    for seed in range(60):
        facts = made_up_facts(seed)
        assert open_template(template)(facts) == PromptText(SYSTEMS.get(template, SYSTEM), as_python(template, facts))


@pytest.mark.slow
def test_a_file_of_ones_own_writes_both_turns(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text(
        '{% set system = "You know " ~ noun ~ "." %}\n'
        "{% for item in shown %}\n{{ item.title }}: {{ item.attributes.genre|join('/') }}\n{% endfor %}\nWhat next?\n"
    )
    log = load_log(users=20)
    lists = candidate_lists(log)
    prompt, *_ = profile_prompts(log, lists, file, users=[3])
    lines = prompt.text.splitlines()
    assert prompt.system == "You know films."
    assert lines[-1] == "What next?"
    assert len(lines) == prompt.num_items_shown + 1
    item = int(lists.histories.of(3)[0][-1])
    assert lines[-2] == f"{log.items['title'][item]}: {log.items['genre'][item][0]}"
    before = template_digest(file)
    file.write_text("Another.")
    assert template_digest(file) != before
    assert profile_prompts(log, lists, file, users=[3])[0].text == "Another."  # not what was read before


@pytest.mark.slow
def test_an_object_writes_the_prompt_and_the_budget_cuts_for_it() -> None:
    log = load_log(users=20)
    lists = candidate_lists(log)

    def mine(facts: ProfileFacts) -> PromptText:
        return PromptText("", "\n".join(["x", *(item.title for item in facts.shown)]))

    lm = SimpleNamespace(count_tokens=lambda text: 10 * len(text.splitlines()))
    for prompt in profile_prompts(log, lists, mine, lm=lm, max_prompt_tokens=96):
        assert (prompt.num_items_shown, len(prompt.text.splitlines())) == (7, 8)  # 16 of the chat, 10 a line
        assert prompt.num_items_cut == len(lists.histories.of(prompt.user)[0]) - 7


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a\n{% for x in %}", r"mine\.jinja, line 2: .*; correct the template"),
        ("a\n\n{{ wrong_name }}", r"mine\.jinja, line 3: 'wrong_name' is undefined"),
        ("a\n{{ shown[99].title }}", r"mine\.jinja, line 2: "),
        ("a\n{{ 1 / 0 }}", r"mine\.jinja, line 2: division by zero"),
        ("{{ ''.__class__.__mro__ }}", r"mine\.jinja, line 1: access to attribute '__class__'"),
        ("{% include '/etc/passwd' %}", r"mine\.jinja, line 1: "),
        (
            "a\n{% for x in range(90000) %}xxxxxxxxxx{% endfor %}",
            rf"mine\.jinja: it writes more than {MAX_CHARS:,} char",
        ),
        (" \n{# nothing #}", r"mine\.jinja writes an empty prompt"),
    ],
)
def test_an_error_in_a_template_names_file_and_line(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text(text)
    with pytest.raises(SettingError, match=complaint):
        open_template(file)(made_up_facts(1))


def test_what_is_no_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"must be counted, .*, dpo4rec or a \.jinja file, got 'countd'"):
        open_template("countd")
    with pytest.raises(ValueError, match=r"must be counted, .*, dpo4rec or a \.jinja file, got 'countd'"):
        PromptConfig(template="countd")
    with pytest.raises(SettingError, match=r"absent\.jinja"):
        open_template(tmp_path / "absent.jinja")
    with pytest.raises(ContractError, match="got int"):
        open_template(7)


def test_a_resolved_configuration_reads_back() -> None:
    for template in ("plain", Path("mine.jinja")):
        config = PromptConfig(template=template)
        assert PromptConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x", "200,000 steps"),
        ("{{ noun|center(100000000) }}", "no large numbers"),
        ("{{ 10 ** 9 }}", "no powers"),
        ("{{ " + "(" * 500 + "1" + ")" * 500 + " }}", "is no template"),
    ],
    ids=["loops", "size", "power", "depth"],
)
def test_a_template_without_an_end_is_one_clear_error(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text(text)
    with pytest.raises(SettingError, match=complaint):
        open_template(file)(ProfileFacts("films", (), (), (), None))


def test_the_template_that_the_documentation_shows_writes_a_prompt(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "prompts.md").read_text(encoding="utf-8")
    (tmp_path / "mine.jinja").write_text(page.partition("```jinja\n")[2].partition("```")[0], encoding="utf-8")
    items = tuple(ShownItem(title, rating, {}, "") for title, rating in (("Heat", 4.0), ("Up", None)))
    written = open_template(tmp_path / "mine.jinja")(ProfileFacts("films", (), items, items, 4.0))
    assert written.system == "You know films well."
    assert written.user.splitlines()[-3:] == ['"Heat", 4 stars;', '"Up";', "Answer in two sentences as in the example."]
    for name in ("noun", "attributes", "shown", "history", "mean_rating", "counts", "profile", "factors"):
        assert f"| `{name}` |" in page
    for name in BUILT_IN:
        assert f"| `{name}` |" in page
