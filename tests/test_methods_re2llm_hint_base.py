"""The hint base: a file that is read back, can be edited by hand, and is refused where it makes no sense."""

import json
from pathlib import Path

import numpy as np
import pytest

from recloop.errors import DataError
from recloop.methods.re2llm.hint_base import (
    Hint,
    HintBase,
    Origin,
    most_alike,
    read_hint_base,
    write_hint_base,
)

BASE = HintBase((Hint("Go by era.", Origin(3, "Heat", 0.0, 1.0)), Hint("Weigh the latest – first.")), {"redundant": 2})


def test_what_is_written_is_read_back_and_the_empty_hint_comes_first(tmp_path: Path) -> None:
    write_hint_base(tmp_path / "hints.json", BASE)
    assert read_hint_base(tmp_path / "hints.json") == BASE
    assert BASE.texts == ("", "Go by era.", "Weigh the latest – first.")


def test_a_person_may_add_a_line_or_write_a_plain_list(tmp_path: Path) -> None:
    file = tmp_path / "hints.json"
    write_hint_base(file, BASE)
    told = json.loads(file.read_text(encoding="utf-8"))
    told["hints"].insert(0, " By hand. ")
    file.write_text(json.dumps(told), encoding="utf-8")
    assert [hint.text for hint in read_hint_base(file).hints] == ["By hand.", *(h.text for h in BASE.hints)]
    file.write_text('["", "One.", {"text": "Two."}]', encoding="utf-8")
    assert read_hint_base(file).hints == (Hint("One."), Hint("Two."))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"hints": ["a"], "counts": {"redundant": "many"}}', "must be whole numbers by name"),
        ('{"hints": ["a"], "counts": [1]}', "must be whole numbers by name"),
        ('{"hints": ["a"], "counts": {"redundant": NaN}}', "must be whole numbers by name"),
        ("[" * 100_000, "must be a JSON file of hints"),
        ("{", "JSON file of hints"),
        ('{"hint": []}', "list of hints"),
        ('["A.", "A."]', "'A.' twice"),
        ('["A.", ]', r"line 1 column \d .*; take the comma (before it )?out"),
        ("[3]", "a text or an object"),
        ('[{"text": "A.", "origin": {"sesion": 1}}]', "fields of one"),
        (json.dumps([f"Hint {n}" for n in range(201)]), "got 201"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "hints.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=match):
        read_hint_base(tmp_path / "hints.json")


def test_a_byte_order_mark_is_read_and_another_encoding_is_said(tmp_path: Path) -> None:
    file = tmp_path / "hints.json"
    file.write_text('["Go by the décor."]', encoding="utf-8-sig")
    assert read_hint_base(file).hints == (Hint("Go by the décor."),)
    file.write_text('["Go by the décor."]', encoding="utf-16")
    with pytest.raises(DataError, match=r"its text is UTF-16; save it as UTF-8$"):
        read_hint_base(file)
    file.write_text('["Go by the décor."]', encoding="latin-1")
    with pytest.raises(DataError, match=r"its text is not UTF-8 at byte 13; save it as UTF-8$"):
        read_hint_base(file)


def test_likeness_is_the_highest_cosine() -> None:
    known = np.array([[1.0, 0.0], [0.0, 0.0], [3.0, 3.0]])
    assert most_alike(np.array([0.0, 2.0]), known) == pytest.approx(np.sqrt(0.5))
    assert most_alike(np.array([0.0, 0.0]), known) == -1.0
    assert most_alike(np.array([1.0, 0.0]), np.empty((0, 2))) == -1.0
