"""Released session files: a folder written here, what is repaired and counted, and the real ones if there."""

import json
from pathlib import Path

import pytest

from recloop.data.released_sessions import read_released, read_released_hints
from recloop.errors import DataError
from recloop.prompts.title_match import distinct_titles

TRAIN = [
    {"session": [1, 2, 1], "target": 3, "candidates": [3, 4, 3, 9]},
    {"session": [1, 3], "target": 3, "candidates": [3, 4]},  # its answer was shown
]
TEST = [{"session": [4], "target": 2, "candidates": [1, 2]}]


def write(folder: Path) -> Path:
    folder.mkdir()
    for part, rows in (("train", TRAIN), ("test", TEST)):
        text = "\n".join(json.dumps(row) for row in rows)
        (folder / f"sessions_{part}.jsonl").write_text(text + "\n", encoding="utf-8")
    (folder / "hints.json").write_text('["", "Mind the user&#39;s era.", " Go by genre. "]', encoding="utf-8")
    movies = "id\ttitle\tyear\n1\tDr. No\t1962\n2\tAmélie\t2001\n3\tHeat\t1995\n4\tUnseen\t\n5\tNever met\t1990\n"
    (folder / "hetrec_movies.dat").write_bytes(movies.encode("latin-1"))
    (folder / "hetrec_movie_genres.dat").write_text("movieID\tgenre\n1\tAction\n1\tSpy\n3\tCrime\n")
    (folder / "hetrec_movie_directors.dat").write_text("movieID\tdirectorID\tdirectorName\n3\tm\tAnn Vale\n")
    return folder


def test_a_folder_becomes_a_task_and_every_repair_is_counted(tmp_path: Path) -> None:
    task = read_released(write(tmp_path / "movie"), None, None, seed=0)
    rows = {row["item_id"]: row for row in task.items.iter_rows(named=True)}
    assert set(rows) == {"1", "2", "3", "4", "9"}
    assert rows["2"]["title"] == "Amélie"
    assert rows["1"]["era"] == ["1960s"]
    assert rows["1"]["genre"] == ["Action", "Spy"]
    assert rows["4"]["era"] == []
    assert rows["9"]["title"] == "item 9"
    (session,) = task.train
    ids = task.items["item_id"].to_list()
    assert [ids[i] for i in session.items] == ["1", "2"]
    assert [ids[i] for i in session.candidates] == ["3", "4", "9"]
    assert ids[session.answer] == "3"
    assert dict(task.notes) == {
        "items without a title": 1,
        "train: candidates repeated": 1,
        "train: items repeated in a session": 1,
        "train: sessions left out, answer shown or no candidate": 1,
    }
    assert task.hints == ("Mind the user's era.", "Go by genre.")


def test_a_damaged_line_and_a_missing_file_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "movie")
    (folder / "sessions_test.jsonl").write_text('{"session": [1]}\n')
    with pytest.raises(DataError, match=r"sessions_test.jsonl, line 1"):
        read_released(folder, None, None, seed=0)
    (folder / "sessions_test.jsonl").unlink()
    with pytest.raises(DataError, match="which is not there"):
        read_released(folder, None, None, seed=0)
    (folder / "hints.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="list of texts"):
        read_released_hints(folder / "hints.json")


def test_only_line_feeds_end_lines_and_blank_ones_are_skipped(tmp_path: Path) -> None:
    folder = write(tmp_path / "movie")
    text = (folder / "sessions_train.jsonl").read_text()
    (folder / "sessions_train.jsonl").write_text(
        text.replace('"target"', '"note": "a\u2028b\x85c", "target"').replace("\n", "\n \n"), encoding="utf-8"
    )
    movies = (folder / "hetrec_movies.dat").read_text(encoding="latin-1").replace("Heat", "Heat\x85 again")
    (folder / "hetrec_movies.dat").write_text(movies.replace("\n", "\n\n"), encoding="latin-1")
    task = read_released(folder, None, None, seed=0)
    assert len(task.train) == 1
    assert dict(task.items.select("item_id", "title").iter_rows())["3"] == "Heat\x85 again"


SESSION = '{"session": [1], "target": 2, "candidates": [2, 3]}'


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("sessions_test.jsonl", SESSION.replace("[1]", '["1"]').encode(), "line 1 must be .* by item number"),
        ("sessions_test.jsonl", SESSION.replace("[1]", "1").encode(), "line 1 must be .* by item number"),
        ("sessions_test.jsonl", SESSION.replace("3", "null").encode(), "line 1 must be .* by item number"),
        ("sessions_test.jsonl", SESSION.replace("3", "9" * 30).encode(), "line 1 must be .* by item number"),
        ("sessions_test.jsonl", b"\n7", "line 2 must be an object"),
        ("sessions_test.jsonl", b"[" * 100_000, "line 1 must be an object"),
        ("sessions_test.jsonl", SESSION.encode() + b"\n\xff", "line 2 must be an object in UTF-8"),
        ("hints.json", b'["\xff"]', "must be JSON in UTF-8"),
        ("hetrec_movies.dat", b"", "must hold rows, got .* which is empty"),
        ("hetrec_movies.dat", b"\n\r\n", "must begin with a header that has id, got ''"),
        ("hetrec_movies.dat", b"\nname\n", "must begin with a header that has id, got 'name'"),
        ("hetrec_movies.dat", b"id\tname\tyear\n1\ta\t1990\n", "must begin with a header that has title"),
        (
            "hetrec_movies.dat",
            b"id\ttitle\tyear\ttitle\n1\ta\t1990\tb\n",
            "must begin with a header that has title once",
        ),
        ("hetrec_movies.dat", b"id\ttitle\tyear\n\ntt1\ta\t1990\n", "line 3 must have a whole number as id"),
        (
            "hetrec_movie_genres.dat",
            b"movieID\tgenre\n\tAction\n",
            "line 2 must have a whole number as movieID",
        ),
    ],
)
def test_a_file_of_another_form_is_one_clear_error(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    folder = write(tmp_path / "movie")
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}\b.*{complaint}"):
        read_released(folder, None, None, seed=0)


@pytest.mark.parametrize(
    ("titles", "complaint"),
    [
        ("[1]", "object of titles, got list"),
        ('{"a": "A"}', "numbers for keys, got 'a'"),
        ('{"' + "1" * 5_000 + '": "A"}', "numbers for keys, got '1"),
    ],
    ids=["list", "letter", "digits"],
)
def test_titles_of_another_form_are_one_clear_error(tmp_path: Path, titles: str, complaint: str) -> None:
    folder = write(tmp_path / "game")
    (folder / "hetrec_movies.dat").unlink()
    (folder / "num_to_title.json").write_text(titles)
    with pytest.raises(DataError, match=complaint):
        read_released(folder, None, None, seed=0)


def test_more_sessions_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="5 train sessions, got 1"):
        read_released(write(tmp_path / "movie"), 5, None, seed=0)


@pytest.mark.slow
def test_the_released_files_load(shared_data: Path) -> None:
    folder = shared_data / "re2llm"
    movie = read_released(folder / "movie", 500, 500, seed=0)
    assert (len(movie.train), len(movie.test), len(movie.hints)) == (500, 500, 20)
    assert all(len(s.candidates) in (49, 50) for s in movie.sessions)
    notes = dict(read_released(folder / "movie", 500, None, seed=0).notes)
    assert notes["test: candidates repeated"] >= 25
    game = read_released(folder / "game", 490, None, seed=0)  # the answer was shown in 10 of 500
    assert (len(game.train), len(game.hints)) == (490, 20)
    assert dict(game.notes)["train: sessions left out, answer shown or no candidate"] == 10
    titles = [movie.items["title"][i] for i in movie.test[0].candidates]
    assert len(distinct_titles(titles)) == len(titles)
