"""MovieLens in every published form."""

import json

import polars as pl
import pytest

from recloop import load_log
from recloop.data.checks import BadRowPolicy
from recloop.data.load import DataConfig, read_log
from recloop.data.movielens import read_movielens
from recloop.data.movielens_forms import GENRES_100K, ML_100K, movielens_form
from recloop.errors import DataError, SettingError
from test_data_movielens import MOVIES, RATINGS, USERS

T = 978300000


def item_100k(number, title, *genres):
    flags = ["1" if name in genres else "0" for name in GENRES_100K]
    return "|".join([str(number), title, "01-Jan-1995", "", "http://x.y/?a,b", *flags])


FILES_100K = {
    "u.data": [f"2\t7\t4\t{T + 5}", f"1\t2\t3\t{T + 9}", f"2\t2\t5\t{T + 1}", f"1\t267\t1\t{T + 8}"],
    "u.item": [
        item_100k(2, "Misérables, Les (1995)", "Drama", "Musical"),
        item_100k(7, "Land Before Time III (1995) (V)", "Children's"),
        item_100k(267, "unknown", "unknown"),
    ],
    "u.user": ["1|24|M|technician|85711", "2|53|F|other|94043"],
}
FILES_1M = {"ratings.dat": RATINGS, "movies.dat": MOVIES, "users.dat": USERS}
FILES_10M = {
    "ratings.dat": [f"10::122::5::{T}", f"9::185::0.5::{T + 1}", f"9::122::3.5::{T + 2}"],
    "movies.dat": ["122::Amélie, The (2001)::Comedy|Romance", "185::Pull My Daisy (1958)::(no genres listed)"],
}
FILES_CSV = {
    "ratings.csv": ["userId,movieId,rating,timestamp", f"10,1,4.0,{T}", f"9,2,0.5,{T + 1}", f"9,3,5.0,{T + 2}"],
    "movies.csv": [
        "movieId,title,genres",
        '1,"City of Lost Children, The (Cité, La) (1995)",Sci-Fi|Drama',
        "2,Black Mirror,(no genres listed)",
        '3,"""Great"" Cats, Dogs (2006–2007)",Musical',
    ],
}


def write_files(folder, files, encoding="utf-8", end="\n"):
    folder.mkdir(exist_ok=True)
    for name, lines in files.items():
        (folder / name).write_bytes("".join(line + end for line in lines).encode(encoding))
    return folder


def read(folder, **settings):
    said: list[str] = []
    form = movielens_form(folder, said.append)
    return read_movielens(folder, form=form, **settings), said[0]


def test_100k_has_flags_for_genres_and_plain_ages(tmp_path):
    log, said = read(write_files(tmp_path, FILES_100K, "latin-1"))
    assert said == "read as MovieLens of the form ml-100k: u.data, u.item, u.user"
    assert log.users.rows() == [(0, "1", "24", "technician", "male"), (1, "2", "53", "other", "female")]
    assert log.users.columns == ["user", "user_id", "age", "occupation", "gender"]
    assert log.items.rows() == [
        (0, "2", "Les Misérables", ["1990s"], ["Drama", "Musical"]),
        (1, "7", "Land Before Time III", ["1990s"], ["Children's"]),
        (2, "267", "unknown", [], []),
    ]
    assert log.interactions.with_columns(pl.col("time") - T).rows() == [
        (0, 2, 1, 8), (0, 0, 3, 9), (1, 0, 5, 1), (1, 1, 4, 5)
    ]  # fmt: skip
    assert (log.name, log.attributes, log.positive_from_rating) == ("ml-100k", ("era", "genre"), 4)


def test_1m_is_the_log_of_its_own_name(tmp_path):
    folder = write_files(tmp_path / "one", FILES_1M, "latin-1")
    (tmp_path / "one-item-knowledge").mkdir()
    (tmp_path / "one-item-knowledge" / "items.json").write_text(json.dumps({"2": "A heist."}))
    one, same = load_log("movielens", path=folder), load_log("ml-1m", path=folder)
    assert one.name == same.name == "ml-1m"
    assert one.attributes == same.attributes == ("era", "genre", "director")
    for frame in ("users", "items", "interactions", "item_knowledge"):
        assert getattr(one, frame).equals(getattr(same, frame))


def test_10m_has_half_stars_and_no_users(tmp_path):
    log, said = read(write_files(tmp_path, FILES_10M), attributes=("year", "genre"))
    assert said == "read as MovieLens of the form ml-10m: ratings.dat, movies.dat"
    assert log.users.rows() == [(0, "9"), (1, "10")]
    assert log.items.rows() == [
        (0, "122", "The Amélie", ["2001"], ["Comedy", "Romance"]),
        (1, "185", "Pull My Daisy", ["1958"], []),
    ]
    assert log.interactions["rating"].to_list() == [0.5, 3.5, 5.0]
    assert log.name == "ml-10m"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_csv_forms_have_quoted_titles_and_some_without_a_year(tmp_path, end):
    log, said = read(write_files(tmp_path / "ml-latest-small", FILES_CSV, end=end))
    assert said == "read as MovieLens of the form csv: ratings.csv, movies.csv"
    assert log.users["user_id"].to_list() == ["9", "10"]
    assert log.items.rows() == [
        (0, "1", "The City of Lost Children (Cité, La)", ["1990s"], ["Sci-Fi", "Drama"]),
        (1, "2", "Black Mirror", [], []),
        (2, "3", '"Great" Cats, Dogs', ["2000s"], ["Musical"]),
    ]
    assert log.interactions["rating"].to_list() == [0.5, 5.0, 4.0]
    assert (log.name, log.positive_from_rating) == ("ml-latest-small", 4)


BAD = [
    (FILES_100K, "u.data", "1\t7\t4.5\t978300100", "'4.5' is not one of the rating values 1, 2, 3, 4, 5"),
    (FILES_100K, "u.data", "3\t7\t4\t978300100", "'3' is not a user of u.user"),
    (FILES_100K, "u.item", "8|Heat (1995)|1995", "does not have the 24 fields"),
    (FILES_100K, "u.user", "3|24|X|other|1", "'X' is not one of the gender values M, F"),
    (FILES_10M, "ratings.dat", f"10::185::4.25::{T}", "'4.25' is not one of the rating values 0.5, 1"),
    (FILES_10M, "ratings.dat", f"ten::185::4::{T}", "'ten' is not a whole number"),
    (FILES_CSV, "ratings.csv", f"9,1,5.5,{T}", "'5.5' is not one of the rating values 0.5, 1"),
    (FILES_CSV, "ratings.csv", f"9,4,5,{T}", "'4' is not a movie of movies.csv"),
    (FILES_CSV, "ratings.csv", f"9,1,5,{T * 1000}", "is not a number of seconds since 1970 between 1990 and 2100"),
    (FILES_CSV, "ratings.csv", f"10,1,5,{T + 3}", "'10, 1' repeats the user and movie"),
    (FILES_CSV, "movies.csv", '4,"Heat (1995)"', "does not have the 3 fields movieId,title,genres"),
    (FILES_CSV, "movies.csv", "4,,Drama", "'4' has no title"),
    (FILES_CSV, "movies.csv", "4,Heat (1995),", "has no genre"),
]


@pytest.mark.parametrize(("files", "file", "row", "complaint"), BAD, ids=[row for *_, row, _ in BAD])
def test_a_bad_row_is_one_error_or_is_set_aside(tmp_path, files, file, row, complaint):
    write_files(tmp_path, files | {file: [*files[file], row]}, "latin-1" if files is FILES_100K else "utf-8")
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert f"{tmp_path}/{file} line {len(files[file]) + 1}: " in str(caught.value)
    assert complaint in str(caught.value)
    log, _ = read(tmp_path, bad_rows=BadRowPolicy(tmp_path / "quarantine.jsonl"))
    assert log.interactions.height == len(next(iter(files.values()))) - (files is FILES_CSV)


@pytest.mark.parametrize("header", ["user,movie,rating,time", "userId;movieId;rating;timestamp", f"9,1,5,{T}"])
def test_a_csv_with_another_header_is_refused(tmp_path, header):
    write_files(tmp_path, FILES_CSV | {"ratings.csv": [header, *FILES_CSV["ratings.csv"][1:]]})
    with pytest.raises(DataError, match=f"begin with the line userId,movieId,rating,timestamp, got '{header}'"):
        read(tmp_path)


def test_folders_of_no_form_or_two_say_what_they_hold(tmp_path):
    write_files(tmp_path / "inner", FILES_CSV)
    with pytest.raises(DataError, match=r"u\.data, u\.item, u\.user \(ml-100k\); .*; got inner in .*; give .*inner$"):
        read(tmp_path)
    (tmp_path / "inner" / "movies.csv").unlink()
    with pytest.raises(DataError, match=r"got ratings\.csv in .*; fetch the missing"):
        read(tmp_path / "inner")
    write_files(tmp_path / "both", FILES_CSV | FILES_100K)
    with pytest.raises(DataError, match=r"one form, got u\.data, .* and ratings\.csv, movies\.csv in"):
        read(tmp_path / "both")
    for name, got in (("nothing", "not there"), ("both/u.data", "a file")):
        with pytest.raises(DataError, match=f"which is {got}; check it"):
            read(tmp_path / name)


def test_what_only_1m_has_is_refused_for_the_others(tmp_path):
    folder = write_files(tmp_path, FILES_CSV)
    with pytest.raises(DataError, match="attributes of csv are era, genre, year, got director; leave it out"):
        load_log("movielens", path=folder, attributes=["genre", "director"])
    with pytest.raises(SettingError, match="metadata is about MovieLens-1M, got it with a log of the form csv"):
        read_log(DataConfig(name="movielens", path=folder, metadata=folder / "movies.csv"), 0)
    assert movielens_form(write_files(tmp_path / "k", FILES_100K), lambda _: None) is ML_100K
