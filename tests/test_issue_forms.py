"""The forms of issues are what GitHub takes: a form it cannot read is not shown, without a word."""

from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[1] / ".github" / "ISSUE_TEMPLATE"
FORMS = sorted(file for file in FOLDER.glob("*.yml") if file.name != "config.yml")
KEYS = {"type", "id", "attributes", "validations"}
OF_TYPE = {
    "markdown": {"value"},
    "input": {"label", "description", "placeholder"},
    "textarea": {"label", "description", "placeholder", "render"},
    "checkboxes": {"label", "description", "options"},
}


@pytest.mark.parametrize("form", FORMS, ids=lambda file: file.stem)
def test_github_takes_the_form(form: Path) -> None:
    told = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert set(told) == {"name", "description", "labels", "body"}
    fields = [part for part in told["body"] if part["type"] != "markdown"]
    assert all(set(part) <= KEYS and set(part["attributes"]) <= OF_TYPE[part["type"]] for part in told["body"])
    for name in ("id", "label"):
        values = [part["id"] if name == "id" else part["attributes"]["label"] for part in fields]
        assert len(set(values)) == len(fields)
    assert any(part.get("validations", {}).get("required") for part in fields)


def test_there_is_one_for_a_bug_a_number_and_a_question() -> None:
    assert [form.stem for form in FORMS] == ["bug", "question", "wrong-number"]
