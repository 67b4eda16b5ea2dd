"""MovieLens-1M as GroupLens publishes it, with optional metadata and item texts beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from recloop.data.assemble import RawLog, clean_text, attribute_label, keep_rated_items, number_log
from recloop.data.checks import (
    STRICT,
    BadRowPolicy,
    Check,
    bad_rows_of,
    duplicate_check,
    field_count_check,
    no_bad_rows,
    read_lines,
    settle_bad_rows,
    split_bad_rows,
    split_fields,
)
from recloop.data.json_files import read_json_object
from recloop.errors import DataError
from recloop.records import Log, Domain

MovieAttribute = Literal["era", "genre", "director", "actor", "certificate"]
ATTRIBUTES: tuple[MovieAttribute, ...] = ("era", "genre", "director")
PEOPLE = {"director": "directors", "actor": "actors"}  # attribute -> field of the metadata
POSITIVE_FROM_RATING = 4.0

GENDERS = {"M": "male", "F": "female"}
AGES = {
    "1": "under 18",
    "18": "18-24",
    "25": "25-34",
    "35": "35-44",
    "45": "45-49",
    "50": "50-55",
    "56": "56 or older",
}
OCCUPATIONS = dict(
    enumerate(
        (
            "occupation not stated",
            "academic or educator",
            "artist",
            "clerical or administrative worker",
            "college or graduate student",
            "customer service worker",
            "doctor or health care worker",
            "executive or manager",
            "farmer",
            "homemaker",
            "school student",
            "lawyer",
            "programmer",
            "retired",
            "sales or marketing worker",
            "scientist",
            "self-employed",
            "technician or engineer",
            "tradesman or craftsman",
            "unemployed",
            "writer",
        )
    )
)

_RATING_FIELDS = ("user_id", "item_id", "rating_text", "time_text")
_USER_FIELDS = ("user_id", "gender_code", "age_code", "occupation_code", "zip")
_MOVIE_FIELDS = ("item_id", "title_year", "genres")
_METADATA_FIELDS = (
    "item_id",
    "name",
    "year",
    "rated",
    "released",
    "genres",
    "directors",
    "writers",
    "actors",
    "plot",
    "poster",
)
_YEAR = r"\s*\((\d{4})\)\s*$"
_ARTICLE = r"^(.*), (The|A|An|Le|La|Les|L'|Il|El|Los|Las|Lo|Der|Die|Das|Det|Den|I|O|Os|Un|Une)(\s\(.*)?$"


def read_movielens(
    folder: Path,
    *,
    metadata: Path | None = None,
    item_knowledge: Path | None = None,
    attributes: Sequence[MovieAttribute] = ATTRIBUTES,
    min_item_ratings: int = 0,
    bad_rows: BadRowPolicy = STRICT,
) -> Log:
    """MovieLens-1M: ``ratings.dat``, ``users.dat``, ``movies.dat``.

    Attributes: era is the decade of the year in the title; directors, actors and the certificate (``PG-13``)
    are those of the metadata, empty without it. Titles are written as spoken, without the year: ``Matrix,
    The (1999)`` becomes ``The Matrix``.

    Args:
        folder: the three files.
        metadata: ``movies_extrainfos.dat``: 11 fields, the 4th the certificate, the 7th the directors, the
            9th the actors.
        attributes: which, in which order.
        item_knowledge: JSON object, movie id to a text about the movie.
        min_item_ratings: leave movies with fewer ratings out; 5 gives the 3,416 movies of DPO4Rec.
        bad_rows: error or quarantine.

    Raises:
        DataError: a file is absent or empty, rows are bad and not to be quarantined, or actors or
            certificates are wanted and there is no metadata.
    """
    users, bad_users = _read_users(folder / "users.dat")
    movies, bad_movies = _read_movies(folder / "movies.dat")
    ratings, bad_ratings = _read_ratings(folder / "ratings.dat", users["user_id"], movies["item_id"])
    unknown = [attribute for attribute in attributes if attribute not in ATTRIBUTES] if metadata is None else []
    if unknown:
        raise DataError(
            f"{' and '.join(unknown)} must be read from the metadata of MovieLens-1M, got none; give "
            f"data.metadata or leave them out of data.attributes"
        )
    extra, bad_metadata = _read_metadata(metadata, movies["item_id"])
    knowledge, bad_knowledge = _read_knowledge(item_knowledge, movies["item_id"])
    settle_bad_rows([bad_users, bad_movies, bad_ratings, bad_metadata, bad_knowledge], bad_rows)
    items = movies.join(extra, on="item_id", how="left", maintain_order="left").with_columns(
        pl.col(*PEOPLE, "certificate").fill_null(pl.lit([], dtype=pl.List(pl.String)))
    )
    raw = RawLog("ml-1m", Domain.MOVIES, users, items, tuple(attributes), ratings, POSITIVE_FROM_RATING, knowledge)
    return number_log(keep_rated_items(raw, min_item_ratings))


def _read_users(path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    lines, odd = read_lines(path, "MovieLens users")
    rows = split_fields(lines, "::", _USER_FIELDS)
    occupations = {str(code): word for code, word in OCCUPATIONS.items()}
    good, bad = split_bad_rows(
        rows,
        path,
        [
            field_count_check(_USER_FIELDS, "::"),
            _id_check("user_id"),
            duplicate_check(["user_id"], "user"),
            _code_check("gender_code", list(GENDERS)),
            _code_check("age_code", list(AGES)),
            _code_check("occupation_code", list(occupations)),
        ],
    )
    users = good.sort(pl.col("user_id").cast(pl.Int64)).select(
        "user_id",
        gender=pl.col("gender_code").replace_strict(GENDERS, return_dtype=pl.String),
        age=pl.col("age_code").replace_strict(AGES, return_dtype=pl.String),
        occupation=pl.col("occupation_code").replace_strict(occupations, return_dtype=pl.String),
    )
    return users, pl.concat([odd, bad])


def _read_movies(path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    lines, odd = read_lines(path, "MovieLens movies")
    rows = split_fields(lines, "::", _MOVIE_FIELDS)
    good, bad = split_bad_rows(
        rows,
        path,
        [
            field_count_check(_MOVIE_FIELDS, "::"),
            _id_check("item_id"),
            duplicate_check(["item_id"], "movie"),
            Check(
                ~pl.col("title_year").str.contains(r"\S" + _YEAR),
                pl.col("title_year"),
                "is not a title with its year, as in 'Heat (1995)'",
                "add the year",
            ),
            Check(pl.col("genres").str.len_bytes() == 0, pl.col("text"), "has no genre", "name one or more"),
        ],
    )
    movies = (
        good.with_columns(title=clean_text("title_year"), year=pl.col("title_year").str.extract(_YEAR, 1))
        .sort(pl.col("item_id").cast(pl.Int64))
        .select(
            "item_id",
            title=_spoken(pl.col("title")),
            era=pl.concat_list(pl.col("year").str.head(3) + "0s"),
            genre=pl.col("genres").str.split("|"),
        )
    )
    return movies, pl.concat([odd, bad])


def _spoken(title: pl.Expr) -> pl.Expr:
    """``Matrix, The (1999)`` as ``The Matrix``."""
    return title.str.replace(_YEAR, "").str.replace(_ARTICLE, "$2 $1$3").str.replace("^L' ", "L'")


def spoken_title(title: str) -> str:
    """A title as `read_movielens` writes it.

    Example:
        >>> spoken_title("Matrix, The (1999)")
        'The Matrix'
    """
    return pl.select(_spoken(pl.lit(title))).item()


def _read_ratings(path: Path, user_ids: pl.Series, item_ids: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
    lines, odd = read_lines(path, "MovieLens ratings")
    rows = split_fields(lines, "::", _RATING_FIELDS).with_columns(
        rating=pl.col("rating_text").cast(pl.Float32, strict=False),
        time=pl.col("time_text").cast(pl.Int64, strict=False),
    )
    good, bad = split_bad_rows(
        rows,
        path,
        [
            field_count_check(_RATING_FIELDS, "::"),
            Check(
                ~pl.col("user_id").is_in(user_ids.implode()),
                pl.col("user_id"),
                "is not a user of users.dat",
                "add the user or remove the line",
            ),
            Check(
                ~pl.col("item_id").is_in(item_ids.implode()),
                pl.col("item_id"),
                "is not a movie of movies.dat",
                "add the movie or remove the line",
            ),
            _code_check("rating_text", ["1", "2", "3", "4", "5"]),
            Check(pl.col("time") < 0, pl.col("time_text"), "is not a time in seconds", "give whole seconds"),
            duplicate_check(["user_id", "item_id"], "user and movie"),
        ],
    )
    return good.select("user_id", "item_id", "rating", "time"), pl.concat([odd, bad])


def _read_metadata(path: Path | None, item_ids: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
    if path is None:
        schema = {"item_id": pl.String} | dict.fromkeys([*PEOPLE, "certificate"], pl.List(pl.String))
        return pl.DataFrame(schema=schema), no_bad_rows()
    lines, odd = read_lines(path, "MovieLens metadata")
    rows = split_fields(lines, "::", _METADATA_FIELDS)
    checks = [
        field_count_check(_METADATA_FIELDS, "::"),
        _known_movie_check(item_ids),
        duplicate_check(["item_id"], "movie"),
    ]
    good, bad = split_bad_rows(rows, path, checks)
    people = {attribute: _names(pl.col(field)) for attribute, field in PEOPLE.items()}
    rated = pl.col("rated").str.replace("UNRATED", "unrated")
    return good.select("item_id", **people, certificate=_stated(pl.concat_list(rated))), pl.concat([odd, bad])


def _names(people: pl.Expr) -> pl.Expr:
    """``Ann Vale, Bo Crane(co-director)`` as a list of names."""
    plain = people.str.replace_all(r"\([^)]*\)", "").str.replace_all(r", (Jr|Sr|I+)\b", " $1")
    return _stated(plain.str.split(",")).list.unique(maintain_order=True)


def _stated(values: pl.Expr) -> pl.Expr:
    """Lists as attribute values, without what is not stated."""
    labels = values.list.eval(attribute_label(pl.element()))
    return labels.list.eval(pl.element().filter((pl.element() != "") & (pl.element() != "N/A")))


def _read_knowledge(path: Path | None, item_ids: pl.Series) -> tuple[pl.DataFrame | None, pl.DataFrame]:
    if path is None:
        return None, no_bad_rows()
    texts = read_json_object(path, "item knowledge")
    known = set(item_ids.to_list())
    odd = [(n, item) for n, (item, text) in enumerate(texts.items(), 1) if not isinstance(text, str)]
    unknown = [(n, item) for n, item in enumerate(texts, 1) if item not in known]
    bad = pl.concat(
        [
            bad_rows_of(path, odd, "does not have a text", "give it one or remove the entry"),
            bad_rows_of(path, unknown, "is not a movie of movies.dat", "remove the entry"),
        ]
    )
    kept = {
        item: text.strip() for item, text in texts.items() if item in known and isinstance(text, str) and text.strip()
    }
    frame = pl.DataFrame(
        {"item_id": list(kept), "text": list(kept.values())},
        schema={"item_id": pl.String, "text": pl.String},
    )
    return frame, bad


def _known_movie_check(item_ids: pl.Series) -> Check:
    return Check(
        ~pl.col("item_id").is_in(item_ids.implode()),
        pl.col("item_id"),
        "is not a movie of movies.dat",
        "add the movie or remove the line",
    )


def _id_check(column: str) -> Check:
    return Check(
        pl.col(column).cast(pl.Int64, strict=False) < 0,
        pl.col(column),
        "is not a whole number",
        "use the number MovieLens gave",
    )


def _code_check(column: str, codes: Sequence[str]) -> Check:
    what = column.removesuffix("_code").removesuffix("_text")
    return Check(
        ~pl.col(column).is_in(list(codes)),
        pl.col(column),
        f"is not one of the {what} values {', '.join(codes)}",
        "correct it",
    )
