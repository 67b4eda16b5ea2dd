"""RecBench+ requests: from a hand-written folder, and the real ones where they are at hand."""

import json

import pytest

from recloop.data.movielens import read_movielens
from recloop.data.recbench import read_recbench
from recloop.errors import DataError
from recloop.prompts.request_answer import are_tellable
from recloop.records import RequestKind
from simulated_by_hand import dataset_of

ROW = {"id": "1", "query": "One.", "history_sample": None, "condition_num": 1, "gt_items": [["i2", "x"]]}


def write(folder, explicit, implicit=(), misinformed=()):
    for name, rows in (("explicit", explicit), ("implicit", implicit), ("misinformed", misinformed)):
        (folder / f"movie_{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) or "\n")
    return folder


def test_requests_have_one_right_candidate_and_their_kind(tmp_path):
    dataset = dataset_of([[(0, 4.0)]], num_items=12)
    rows = [
        ROW,
        ROW | {"condition_num": 2, "gt_items": [["i2", "x"], ["i3", "y"], ["i99", "z"]]},
        ROW | {"condition_num": 5},
        ROW | {"gt_items": [["i99", "z"]]},
    ]
    told = ROW | {"history_sample": ["Title 7", "Title 99"]}
    requests, num_unknown = read_recbench(write(tmp_path, rows, [told], [ROW]), dataset, 5, 0, are_tellable)
    assert [request.kind for request in requests] == [
        RequestKind.EXPLICIT_1,
        RequestKind.EXPLICIT_2,
        RequestKind.EXPLICIT_3,
        RequestKind.IMPLICIT,
        RequestKind.MISINFORMED,
    ]
    assert num_unknown == 1
    for request, right in zip(requests, ({2}, {2, 3}, {2}, {2}, {2}), strict=True):
        assert len(set(request.candidates)) == 5
        assert set(request.candidates) & right == {request.answer}
    assert requests[3].history == (7,)
    assert 7 not in requests[3].candidates


def test_damaged_files_are_one_clear_error(tmp_path):
    dataset = dataset_of([[(0, 4.0)]], num_items=12)
    with pytest.raises(DataError, match=r"movie_explicit\.jsonl which is not there"):
        read_recbench(tmp_path, dataset, 5, 0, are_tellable)
    write(tmp_path, [{"query": "One."}])
    with pytest.raises(
        DataError,
        match=r"movie_explicit\.jsonl, line 1 must be an object .* with a text as query, a number as condition_num",
    ):
        read_recbench(tmp_path, dataset, 5, 0, are_tellable)
    (tmp_path / "movie_explicit.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"line 1 must be an object .* got '{'"):
        read_recbench(tmp_path, dataset, 5, 0, are_tellable)


def test_only_line_feeds_end_lines_and_blank_ones_are_skipped(tmp_path):
    dataset = dataset_of([[(0, 4.0)]], num_items=12)
    folder = write(tmp_path, [])
    row = json.dumps(ROW | {"query": "One\u2028or\x85two."}, ensure_ascii=False)
    (folder / "movie_explicit.jsonl").write_text(f"{row}\n\n{row}\n", encoding="utf-8")
    requests, _ = read_recbench(folder, dataset, 5, 0, are_tellable)
    assert [request.text for request in requests] == ["One\u2028or\x85two."] * 2


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\xff", "line 1 must be an object in UTF-8"),
        (b"[1]", r"got '\[1\]'"),
        (b"7", "got '7'"),
        (b"[" * 100_000, r"got '\[\[\["),
        (json.dumps(ROW | {"gt_items": ["i2"]}).encode(), "pairs of id and title as gt_items"),
        (json.dumps(ROW | {"gt_items": 2}).encode(), "pairs of id and title as gt_items"),
        (json.dumps(ROW | {"query": None}).encode(), "a text as query"),
        (json.dumps(ROW | {"condition_num": [1]}).encode(), "a number as condition_num"),
        (json.dumps(ROW | {"history_sample": 4}).encode(), "nothing as history_sample"),
    ],
)
def test_a_file_of_another_form_is_one_clear_error(tmp_path, content, complaint):
    (write(tmp_path, []) / "movie_explicit.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        read_recbench(tmp_path, dataset_of([[(0, 4.0)]], num_items=12), 5, 0, are_tellable)


@pytest.mark.slow
def test_the_real_requests_are_read(shared_data):
    dataset = read_movielens(shared_data / "ml-1m")
    requests, num_unknown = read_recbench(shared_data / "recbenchplus", dataset, 20, 0, are_tellable)
    assert len(requests) + num_unknown == 2_082 + 1_132 + 466
    assert num_unknown < 100
    assert all(request.answer in request.candidates for request in requests)
    assert sum(request.kind is RequestKind.MISINFORMED for request in requests) > 400
