"""MovieLens-1M: what is read, and what is refused."""

import json
import math

import pytest

from recloop.data.checks import BadRowPolicy
from recloop.data.lists import ProtocolConfig, build_lists
from recloop.data.movielens import read_movielens, spoken_title
from recloop.data.splits import REPRODUCTION, split_users
from recloop.errors import DataError

USERS = ["1::F::1::10::48067", "5::M::56::16::70072", "9::M::25::15::55117"]
MOVIES = [
    "2::Heat (1995)::Action|Crime",
    "7::Matrix, The (1999)::Sci-Fi",
    "30::Misérables, Les (1935)::Drama",
]
RATINGS = [
    "5::7::4::978300100",
    "1::30::5::978300300",
    "1::2::3::978300200",
    "1::7::1::978300200",
    "5::2::5::978300090",
]
METADATA = [
    "7::The Matrix::1999::R::31 Mar 1999::Action::Ann Vale, Bo Crane(co-director)::x::Cy Dale, Ed Fox::p::u",
    "2::Heat::1995::UNRATED::1995::Action::N/A::x::N/A::p::url",
]


def write(folder, **changes):
    files = {"users": USERS, "movies": MOVIES, "ratings": RATINGS} | changes
    for name, lines in files.items():
        (folder / f"{name}.dat").write_bytes("".join(line + "\n" for line in lines).encode("latin-1"))
    return folder


def test_a_small_folder_is_read_in_one_form(tmp_path):
    dataset = read_movielens(write(tmp_path))
    assert dataset.users.rows() == [
        (0, "1", "female", "under 18", "school student"),
        (1, "5", "male", "56 or older", "self-employed"),
    ]  # user 9 rated nothing
    assert dataset.items.rows() == [
        (0, "2", "Heat", ["1990s"], ["Action", "Crime"], []),
        (1, "7", "The Matrix", ["1990s"], ["Sci-Fi"], []),
        (2, "30", "Les Misérables", ["1930s"], ["Drama"], []),
    ]
    # by user, time, item: the two ratings of the same second follow the item numbers
    assert dataset.interactions.rows() == [
        (0, 0, 3.0, 978300200),
        (0, 1, 1.0, 978300200),
        (0, 2, 5.0, 978300300),
        (1, 0, 5.0, 978300090),
        (1, 1, 4.0, 978300100),
    ]
    assert dataset.item_knowledge is None
    assert dataset.attributes == ("era", "genre", "director")


def test_directors_and_item_texts_come_from_beside(tmp_path):
    metadata, texts = tmp_path / "extra.dat", tmp_path / "texts.json"
    metadata.write_text("\n".join(METADATA), encoding="utf-8")
    texts.write_text(json.dumps({"2": " A heist. ", "7": "", "30": "A novel."}))
    dataset = read_movielens(write(tmp_path), metadata=metadata, item_knowledge=texts)
    assert dataset.items["director"].to_list() == [[], ["Ann Vale", "Bo Crane"], []]
    assert dataset.item_knowledge.rows() == [(0, "A heist."), (2, "A novel.")]


def test_attributes_are_those_asked_for_in_their_order(tmp_path):
    metadata = tmp_path / "extra.dat"
    metadata.write_text("\n".join(METADATA), encoding="utf-8")
    attributes = ("certificate", "genre", "actor")
    dataset = read_movielens(write(tmp_path), metadata=metadata, attributes=attributes)
    assert dataset.attributes == attributes
    assert dataset.items.columns == ["item", "item_id", "title", *attributes]
    assert dataset.items["certificate"].to_list() == [["unrated"], ["R"], []]
    assert dataset.items["actor"].to_list() == [[], ["Cy Dale", "Ed Fox"], []]


def test_actors_without_metadata_are_refused(tmp_path):
    with pytest.raises(DataError, match="actor must be read from the metadata of MovieLens-1M, got none"):
        read_movielens(write(tmp_path), attributes=("genre", "actor"))


def test_rarely_rated_movies_can_be_left_out(tmp_path):
    dataset = read_movielens(write(tmp_path), min_item_ratings=2)
    assert dataset.items["item_id"].to_list() == ["2", "7"]
    assert dataset.interactions.height == 4


@pytest.mark.parametrize(
    ("raw", "spoken"),
    [
        ("Matrix, The (1999)", "The Matrix"),
        ("American in Paris, An (1951)", "An American in Paris"),
        ("Enfer, L' (1994)", "L'Enfer"),
        ("Postino, Il (The Postman) (1994)", "Il Postino (The Postman)"),
        ("Associate, The (L'Associe)(1982)", "The Associate (L'Associe)"),
        ("Bye Bye, Love (1995)", "Bye Bye, Love"),
        ("301, 302 (1995)", "301, 302"),
        ("Hate (Haine, La) (1995)", "Hate (Haine, La)"),
    ],
)
def test_titles_are_written_as_spoken(raw, spoken):
    assert spoken_title(raw) == spoken


BAD = [
    ("ratings", "1::2::3", "does not have the 4 fields"),
    ("ratings", "2::7::3::978300100", "'2' is not a user of users.dat"),
    ("ratings", "9::8::3::978300100", "'8' is not a movie of movies.dat"),
    ("ratings", "9::7::6::978300100", "'6' is not one of the rating values 1, 2, 3, 4, 5"),
    ("ratings", "9::7::four::100", "'four' is not one of the rating values"),
    ("ratings", "9::7::4::yesterday", "'yesterday' is not a number of seconds since 1970 between 1990 and 2100"),
    ("ratings", "5::7::2::978300101", "'5, 7' repeats the user and movie"),
    ("users", "5::M::56::16::70072", "'5' repeats the user"),
    ("users", "6::X::56::16::70072", "'X' is not one of the gender values M, F"),
    ("users", "6::M::57::16::70072", "'57' is not one of the age values"),
    ("users", "six::M::56::16::70072", "'six' is not a whole number"),
    ("movies", "8::No year::Drama", "'No year' is not a title with its year"),
    ("movies", "7::Again (1999)::Drama", "'7' repeats the movie"),
    ("movies", "8::No genre (1999)::", "has no genre"),
]


@pytest.mark.parametrize(("file", "row", "complaint"), BAD, ids=[f"{file}-{row}" for file, row, _ in BAD])
def test_a_bad_row_is_one_error_or_is_set_aside(tmp_path, file, row, complaint):
    good = {"users": USERS, "movies": MOVIES, "ratings": RATINGS}[file]
    write(tmp_path, **{file: [*good, row]})
    with pytest.raises(DataError) as caught:
        read_movielens(tmp_path)
    assert f"{tmp_path}/{file}.dat line {len(good) + 1}: " in str(caught.value)
    assert complaint in str(caught.value)
    quarantine = tmp_path / "quarantine.jsonl"
    dataset = read_movielens(tmp_path, bad_rows=BadRowPolicy(quarantine))
    assert dataset.interactions.height == len(RATINGS)
    assert json.loads(quarantine.read_text())["line"] == len(good) + 1


def test_all_files_are_settled_in_one_error(tmp_path):
    write(tmp_path, users=[*USERS, "x"], ratings=[*RATINGS, "1::30::9::978300001"])
    with pytest.raises(DataError, match=r"(?s)2 rows are bad.*users\.dat line 4.*ratings\.dat line 6"):
        read_movielens(tmp_path)


def test_a_movie_file_in_two_encodings_is_refused(tmp_path):
    write(tmp_path)
    raw = (tmp_path / "movies.dat").read_bytes() + "8::Amélie (2001)::Comedy\n".encode()
    (tmp_path / "movies.dat").write_bytes(raw)
    with pytest.raises(DataError, match=r"line 4: .* is not in the encoding of the other lines"):
        read_movielens(tmp_path)


@pytest.mark.parametrize("file", ["users", "movies", "ratings"])
@pytest.mark.parametrize("fault", ["absent", "empty"])
def test_a_missing_or_empty_file_is_named(tmp_path, file, fault):
    write(tmp_path)
    path = tmp_path / f"{file}.dat"
    path.unlink() if fault == "absent" else path.write_bytes(b"")
    with pytest.raises(DataError, match=rf"MovieLens {file} must .*{file}\.dat"):
        read_movielens(tmp_path)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"2": 5}', '{"2": "a", "2": "b"}', '{"999": "unknown"}', "{}"])
def test_item_texts_of_the_wrong_form_are_refused(tmp_path, text):
    texts = tmp_path / "texts.json"
    texts.write_text(text)
    with pytest.raises(DataError, match=r"texts\.json"):
        read_movielens(write(tmp_path), item_knowledge=texts)


@pytest.mark.slow
def test_movielens_1m_has_the_published_counts(shared_data):
    dataset = read_movielens(
        shared_data / "ml-1m",
        metadata=shared_data / "ml-1m-metadata" / "movies_extrainfos.dat",
        item_knowledge=shared_data / "ml-1m-item-knowledge" / "items.json",
    )
    assert (dataset.num_users, dataset.num_items, dataset.interactions.height) == (6040, 3706, 1_000_209)
    rating = dataset.interactions["rating"].value_counts().sort("rating")["count"].to_list()
    assert rating == [56174, 107557, 261197, 348971, 226310]
    assert dataset.items["era"].list.len().min() == 1
    assert dataset.items["genre"].explode().n_unique() == 18
    assert (dataset.items["director"].list.len() > 0).mean() > 0.98
    assert dataset.item_knowledge.height >= 3700
    order = dataset.interactions.select("user", "time", "item")
    assert order.equals(order.sort("user", "time", "item"))
    made = build_lists(dataset, split_users(6040, REPRODUCTION, 0), ProtocolConfig(), 0)
    count_U = dataset.interactions.group_by("user", maintain_order=True).len()["len"].to_list()
    expected = sum(math.ceil((n - min((n + 1) // 2, 30)) / 4) for n in count_U)
    assert len(made.train) + len(made.valid) + len(made.test) == expected


@pytest.mark.slow
def test_movielens_1m_with_five_ratings_a_movie_has_the_papers_catalogue(shared_data):
    assert read_movielens(shared_data / "ml-1m", min_item_ratings=5).num_items == 3416
