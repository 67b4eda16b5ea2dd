"""KAR's published texts: read, matched to users, and kept away from labels."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from recloop.data.checks import BadRowPolicy
from recloop.data.kar_knowledge import read_klg, with_item_texts, with_user_texts
from recloop.data.lists import ProtocolConfig, build_lists
from recloop.data.load import DataConfig, read_log
from recloop.data.movielens import read_movielens
from recloop.errors import DataError
from recloop.records import Group

MOVIES = [f"{n}::Film {n} (1990)::Drama" for n in range(1, 31)] + ["40::Matrix, The (1999)::Sci-Fi"]
PROMPT = (
    "Given a female user who is aged 18-24 and writer, this user's movie viewing history over time is listed "
    'below. "Film 6 (1990)", 4 stars; "Matrix, The (1999)", 5 stars; "Film 1 (1990)", 2 stars; Analyze.'
)


def log_folder(folder):
    """User 1 met films 1..6 and 40 in this order; user 2 met films 7..10."""
    seen = {1: [1, 2, 3, 4, 5, 6, 40], 2: [7, 8, 9, 10]}
    ratings = [
        f"{u}::{film}::5::{978300000 + 100 * u + place}"
        for u, films in seen.items()
        for place, film in enumerate(films)
    ]
    for user in (3, 4):  # so that every film was met by somebody
        ratings += [f"{user}::{film.split('::')[0]}::3::{978300000 + n}" for n, film in enumerate(MOVIES)][
            user - 3 :: 2
        ]
    users = [f"{u}::F::18::20::0" for u in (1, 2, 3, 4)]
    for name, lines in (("users", users), ("movies", MOVIES), ("ratings", ratings)):
        (folder / f"{name}.dat").write_text("\n".join(lines) + "\n")
    return read_movielens(folder)


def klg_folder(folder, users=None, index=None):
    users = {"1": {"prompt": PROMPT, "ans": " Likes drama. "}} if users is None else users
    (folder / "user.klg").write_text(json.dumps(users))
    (folder / "item.klg").write_text(json.dumps({"40": {"prompt": "Introduce", "ans": "A film."}}))
    (folder / "begin_index.json").write_text(json.dumps({"1": 3, "2": 10} if index is None else index))
    return folder


def test_texts_index_and_items_are_read(tmp_path):
    dataset, knowledge = log_folder(tmp_path), read_klg(klg_folder(tmp_path))
    assert knowledge.users.select("user_id", "text", "num_shown").rows() == [("1", "Likes drama.", 3)]
    assert with_user_texts(dataset, knowledge).user_knowledge.rows() == [(0, "Likes drama.", 3)]
    with_texts = with_item_texts(dataset, knowledge)
    assert with_texts.item_knowledge.rows() == [(30, "A film.")]


def test_what_a_prompt_shows_is_the_window_and_never_a_label(tmp_path):
    dataset, knowledge = log_folder(tmp_path), read_klg(klg_folder(tmp_path))
    honoured = with_user_texts(dataset, knowledge)
    made = build_lists(honoured, {Group.TEST: np.arange(2)}, ProtocolConfig(), 0)
    titles = dataset.items["title"].to_list()
    assert [titles[item] for item in made.histories.of(0)[0]] == ["Film 6", "The Matrix", "Film 1"]
    listed = {titles[item] for item in made.test.items_BL[made.test.labels_BL > 0]}
    assert listed == {"Film 2", "Film 3", "Film 4", "Film 5", "Film 9", "Film 10"}
    # users without a text keep their order
    assert made.histories.of(1)[0].tolist() == [6, 7]
    assert honoured.interactions.height == dataset.interactions.height


@pytest.mark.parametrize(
    ("users", "index", "complaint"),
    [
        (None, {"1": 4}, "must show 4 interactions as its index says, got 3"),
        ({"1": {"prompt": PROMPT.replace("Film 6", "Film 9"), "ans": "x"}}, None, "got 'Film 9"),
    ],
)
def test_texts_of_another_log_or_release_are_refused(tmp_path, users, index, complaint):
    dataset = log_folder(tmp_path)
    with pytest.raises(DataError, match=complaint):
        with_user_texts(dataset, read_klg(klg_folder(tmp_path, users, index)))


@pytest.mark.parametrize(
    ("users", "index", "complaint"),
    [
        ({"1": {"prompt": PROMPT}}, None, "line 1: '1' has no prompt and ans with text"),
        ({"1": "text"}, None, "line 1: '1' has no prompt and ans with text"),
        (None, {"2": 10}, "'1' is not in begin_index.json"),
        (None, {"1": 3, "2": "ten"}, "line 2: '2: ten' is not a number of interactions"),
    ],
)
def test_bad_entries_are_one_error_or_are_set_aside(tmp_path, users, index, complaint):
    folder = klg_folder(tmp_path, users, index)
    with pytest.raises(DataError, match=complaint):
        read_klg(folder)
    read_klg(folder, BadRowPolicy(tmp_path / "bad.jsonl"))
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 1


def test_a_setting_reads_the_folder_and_a_sample_of_users_keeps_its_texts(tmp_path):
    log_folder(tmp_path)
    klg_folder(tmp_path)
    config = DataConfig(name="ml-1m", path=tmp_path, kar=tmp_path)
    whole = read_log(config, 0)
    assert whole.item_knowledge.rows() == [(30, "A film.")]
    assert whole.user_knowledge.rows() == [(0, "Likes drama.", 3)]
    for seed in range(4):
        some = read_log(config.model_copy(update={"users": 3}), seed)
        ids = some.users["user_id"].to_list()
        told = [(ids.index("1"), "Likes drama.", 3)] if "1" in ids else []
        assert some.user_knowledge.rows() == told
    with pytest.raises(ValidationError, match=r"data\.kar is read for movielens, ml-1m, amazon only"):
        DataConfig(kar=tmp_path)


def test_texts_of_strangers_are_refused(tmp_path):
    dataset = log_folder(tmp_path)
    strangers = {"77": {"prompt": PROMPT, "ans": "x"}}
    with pytest.raises(DataError, match="got none of its 4"):
        with_user_texts(dataset, read_klg(klg_folder(tmp_path, strangers, {"77": 3})))


def test_without_its_index_a_folder_is_refused(tmp_path):
    (klg_folder(tmp_path) / "begin_index.json").unlink()
    with pytest.raises(DataError, match=r"got no begin_index\.json or end_index\.json"):
        read_klg(tmp_path)


def test_a_number_of_more_digits_than_anybody_saw_is_a_bad_row(tmp_path):
    with pytest.raises(DataError, match="is not a number of interactions"):
        read_klg(klg_folder(tmp_path, index={"1": 2**64}))
