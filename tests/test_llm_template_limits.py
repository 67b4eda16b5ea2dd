"""Templates of others: what has no end or makes a text enormous is stopped, and any other is left alone."""

import time

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from recloop.llm.bundled import bundled_lm_folder
from recloop.llm.template_limits import MAX_CHARS, MAX_STEPS, limited_rendering, require_modest

NESTED = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
DOUBLED = "{% set ns = namespace(a='xy') %}{% for i in range(99) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}"
DOUBLED_IN_PLACE = "{% set a = 'x' * 1000 %}{% set a = a * 1000 %}{% set a = a * 1000 %}{% set b = a %}"


def render(text, **facts):
    environment = ImmutableSandboxedEnvironment()
    template = environment.from_string(text)
    with limited_rendering("<template>"):
        return template.render(**facts)


@pytest.mark.parametrize(
    ("text", "limit"),
    [(NESTED, f"{MAX_STEPS:,} steps"), (DOUBLED, f"{MAX_CHARS:,} char"), (DOUBLED_IN_PLACE, f"{MAX_CHARS:,} char")],
    ids=["nested", "doubled", "in-place"],
)
def test_what_has_no_end_is_stopped(text, limit):
    start = time.monotonic()
    with pytest.raises(OverflowError, match=limit):
        render(text)
    assert time.monotonic() - start < 10


def test_an_ordinary_template_writes_what_it_would():
    text = "{% set ns = namespace(n=0) %}{% for m in ms %}{% set ns.n = ns.n + 2 * m %}{{ m }},{% endfor %}{{ ns.n }}"
    assert render(text, ms=[1, 2, 3]) == "1,2,3,12"


@pytest.mark.parametrize(
    "text",
    [
        "{{ 2 ** 9 }}",
        "{{ 'x' * 100000 }}",
        "{% for i in range(10_000_000) %}{% endfor %}",
        "{{ '%9999999d'|format(1) }}",
    ],
)
def test_numbers_that_only_make_a_text_enormous_are_refused(text):
    with pytest.raises(OverflowError, match="no powers and no large numbers"):
        require_modest(text)


def test_numbers_outside_tags_and_the_bundled_template_pass():
    require_modest("Call 0123456789 ** now. {{ 2 * 50 }} {{ '2024' }}")
    require_modest((bundled_lm_folder() / "chat_template.jinja").read_text())
