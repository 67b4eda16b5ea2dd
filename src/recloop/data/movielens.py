"""MovieLens as GroupLens publishes it, 1M with optional metadata and item texts beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import polars as pl

from recloop.data import checks
from recloop.data.assemble import RawLog, attribute_labels, clean_text, keep_rated_items, number_log
from recloop.data.checks import STRICT, BadRowPolicy, Check, Rows
from recloop.data.movielens_forms import ML_1M, ML_100K, ML_CSV, NO_GENRES, Form, movie_fields, rating_fields
from recloop.data.text_files import read_fields, read_json_object
from recloop.data.times import TIME, with_times
from recloop.data.titles import without_year, year_of
from recloop.errors import DataError
from recloop.records import Domain, Log

MovieAttribute = Literal["era", "genre", "director", "actor", "certificate", "year"]
ATTRIBUTES: tuple[MovieAttribute, ...] = ("era", "genre", "director")
OF_EVERY_FORM = ("era", "genre", "year")
PEOPLE = {"director": "directors", "actor": "actors"}  # attribute -> field of the metadata
POSITIVE_FROM_RATING = 4.0
UNSTATED = ("", "N/A")

GENDERS = {"M": "male", "F": "female"}
AGES = {
    "1": "under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49", "50": "50-55", "56": "56 or older",
}  # fmt: skip
OCCUPATIONS = {str(code): name for code, name in enumerate((
    "occupation not stated", "academic or educator", "artist", "clerical or administrative worker",
    "college or graduate student", "customer service worker", "doctor or health care worker", "executive or manager",
    "farmer", "homemaker", "school student", "lawyer", "programmer", "retired", "sales or marketing worker",
    "scientist", "self-employed", "technician or engineer", "tradesman or craftsman", "unemployed", "writer",
))}  # fmt: skip

_USER_FIELDS = ("user_id", "gender_code", "age_code", "occupation_code", "zip")
_USER_FIELDS_100K = ("user_id", "age", "gender_code", "occupation", "zip")
_METADATA_FIELDS = (
    "item_id", "name", "year", "rated", "released", "genres", "directors", "writers", "actors", "plot", "poster",
)  # fmt: skip
_ARTICLE = r"^(.*), (The|A|An|Le|La|Les|L'|Il|El|Los|Las|Lo|Der|Die|Das|Det|Den|I|O|Os|Un|Une)(\s\(.*)?$"


def read_movielens(
    folder: Path,
    *,
    form: Form = ML_1M,
    metadata: Path | None = None,
    item_knowledge: Path | None = None,
    attributes: Sequence[MovieAttribute] = ATTRIBUTES,
    min_item_ratings: int = 0,
    bad_rows: BadRowPolicy = STRICT,
) -> Log:
    """The log of MovieLens in a published form.

    Attributes: era is the decade of the year in the title, year the year; directors, actors and the certificate
    (``PG-13``) are those of the metadata, empty without it. Titles are written as spoken, without the year:
    ``Matrix, The (1999)`` becomes ``The Matrix``.

    Args:
        folder: the files of the form.
        metadata: of 1M, ``movies_extrainfos.dat``: 11 fields, the 4th the certificate, the 7th the directors, the
            9th the actors.
        attributes: which, in which order; directors, which only 1M has, are left out of the default for other forms.
        item_knowledge: JSON object, movie id to a text about the movie.
        min_item_ratings: leave movies with fewer ratings out; 5 gives the 3,416 movies of DPO4Rec.

    Raises:
        DataError: a file is absent or empty, rows are bad and not to be quarantined, or an attribute needs metadata.
    """
    attributes = _known_attributes(attributes, form, metadata)
    movies = _read_movies(folder, form)
    movie_ids = movies.good["item_id"]
    users = _read_users(folder, form)
    ratings = _read_ratings(folder, form, users and users.good["user_id"], movie_ids)
    extra = _read_metadata(metadata, movie_ids)
    knowledge = [_read_knowledge(item_knowledge, movie_ids)] if item_knowledge else []
    checks.settle([*([users] if users else []), movies, ratings, extra, *knowledge], bad_rows)
    items = movies.good.join(extra.good, on="item_id", how="left", maintain_order="left").with_columns(
        pl.col(*PEOPLE, "certificate").fill_null(pl.lit([], dtype=pl.List(pl.String)))
    )
    known = users.good if users else ratings.good.select("user_id").unique().sort(pl.col("user_id").cast(pl.Int64))
    raw = RawLog(
        folder.resolve().name if form is ML_CSV else form.name, Domain.MOVIES, known, items, tuple(attributes),
        ratings.good, POSITIVE_FROM_RATING, knowledge[0].good if knowledge else None,
    )  # fmt: skip
    return number_log(keep_rated_items(raw, min_item_ratings))


def _known_attributes(
    attributes: Sequence[MovieAttribute], form: Form, metadata: Path | None
) -> Sequence[MovieAttribute]:
    if form is not ML_1M and tuple(attributes) == ATTRIBUTES:
        attributes = ("era", "genre")
    known = (*OF_EVERY_FORM, *(("director",) if form is ML_1M else ()))
    unknown = [attribute for attribute in attributes if metadata is None and attribute not in known]
    if unknown and form is ML_1M:
        raise DataError(
            f"{' and '.join(unknown)} must be read from the metadata of MovieLens-1M, got none; give "
            f"data.metadata or leave them out of data.attributes"
        )
    if unknown:
        raise DataError(
            f"data.attributes of {form.name} are {', '.join(OF_EVERY_FORM)}, got {' and '.join(unknown)}; leave it out"
        )
    return attributes


def _read_users(folder: Path, form: Form) -> Rows | None:
    if form.users is None:
        return None
    is_100k = form is ML_100K
    codes = {"gender": GENDERS} if is_100k else {"gender": GENDERS, "age": AGES, "occupation": OCCUPATIONS}
    separator, fields = ("|", _USER_FIELDS_100K) if is_100k else ("::", _USER_FIELDS)
    users = read_fields(
        folder / form.users, "MovieLens users", separator, fields,
        _id_check("user_id"),
        checks.duplicate(["user_id"], "user"),
        *(_code_check(f"{name}_code", list(words)) for name, words in codes.items()),
    )  # fmt: skip
    words = {n: pl.col(f"{n}_code").replace_strict(known, return_dtype=pl.String) for n, known in codes.items()}
    plain = [clean_text("age"), clean_text("occupation")] if is_100k else []
    return replace(users, good=users.good.sort(pl.col("user_id").cast(pl.Int64)).select("user_id", *plain, **words))


def _read_movies(folder: Path, form: Form) -> Rows:
    title, text = pl.col("title"), pl.col("title_year")
    needs_year = Check(
        year_of(text).is_null(), text, "is not a title with its year, as in 'Heat (1995)'", "add the year"
    )
    movies = movie_fields(folder, form).check(
        _id_check("item_id"),
        checks.duplicate(["item_id"], "movie"),
        needs_year if form is ML_1M else checks.missing("title_year", "item_id", "has no title"),
        checks.missing("genres", "title_year", "has no genre", "name one or more"),
    )
    rows = movies.good.with_columns(title=clean_text("title_year"), year=pl.concat_list(year_of(text)))
    years = pl.col("year").list.drop_nulls()
    return replace(movies, good=rows.sort(pl.col("item_id").cast(pl.Int64))).select(
        "item_id",
        title=_spoken(title),
        era=years.list.eval(pl.element().str.head(3) + "0s"),
        year=years,
        genre=pl.col("genres").replace(NO_GENRES, None).str.split("|").fill_null(pl.lit([], dtype=pl.List(pl.String))),
    )


def _spoken(title: pl.Expr) -> pl.Expr:
    """``Matrix, The (1999)`` as ``The Matrix``."""
    return without_year(title).str.replace(_ARTICLE, "$2 $1$3").str.replace("^L' ", "L'")


def spoken_title(title: str) -> str:
    """A title as `read_movielens` writes it.

    Example:
        >>> spoken_title("Matrix, The (1999)")
        'The Matrix'
    """
    return pl.select(_spoken(pl.lit(title))).item()


def _read_ratings(folder: Path, form: Form, user_ids: pl.Series | None, item_ids: pl.Series) -> Rows:
    whole = _code_check("rating_text", ["1", "2", "3", "4", "5"])
    halves, text = 2 * pl.col("rating_text").cast(pl.Float64, strict=False), pl.col("rating_text")
    is_half = halves.is_between(1, 10) & (halves % 1 == 0)
    rows = rating_fields(folder, form).check(
        _id_check("user_id")
        if user_ids is None
        else checks.known("user_id", user_ids, f"is not a user of {form.users}", "add the user or remove the line"),
        checks.known("item_id", item_ids, f"is not a movie of {form.movies}", "add the movie or remove the line"),
        Check(~is_half, text, "is not one of the rating values 0.5, 1, 1.5, ..., 5", "correct it")
        if form.has_halves
        else whole,
    )
    rows = with_times(rows, "time_text", "s").check(checks.duplicate(["user_id", "item_id"], "user and movie"))
    return rows.select("user_id", "item_id", rating=pl.col("rating_text").cast(pl.Float32), time=pl.col(TIME))


def _read_metadata(path: Path | None, item_ids: pl.Series) -> Rows:
    if path is None:
        schema = {"item_id": pl.String} | dict.fromkeys([*PEOPLE, "certificate"], pl.List(pl.String))
        return Rows(Path(), pl.DataFrame(schema=schema))
    rows = read_fields(
        path, "MovieLens metadata", "::", _METADATA_FIELDS,
        _known_movie_check(item_ids),
        checks.duplicate(["item_id"], "movie"),
    )  # fmt: skip
    people = {attribute: _names(pl.col(field)) for attribute, field in PEOPLE.items()}
    rated = pl.col("rated").str.replace("UNRATED", "unrated")
    return rows.select("item_id", **people, certificate=attribute_labels(pl.concat_list(rated), UNSTATED))


def _names(people: pl.Expr) -> pl.Expr:
    """``Ann Vale, Bo Crane(co-director)`` as a list of names."""
    plain = people.str.replace_all(r"\([^)]*\)", "").str.replace_all(r", (Jr|Sr|I+)\b", " $1")
    return attribute_labels(plain.str.split(","), UNSTATED)


def _read_knowledge(path: Path, item_ids: pl.Series) -> Rows:
    texts = read_json_object(path, "item knowledge")
    rows = [
        (n, item, text.strip() if isinstance(text, str) else None) for n, (item, text) in enumerate(texts.items(), 1)
    ]
    schema = {"line": pl.Int64, "item_id": pl.String, "text": pl.String}
    item, text = pl.col("item_id"), pl.col("text")
    found = Rows(path, pl.DataFrame(rows, schema=schema, orient="row")).check(
        Check(text.is_null(), item, "does not have a text", "give it one or remove the entry"),
        checks.known("item_id", item_ids, "is not a movie of movies.dat", "remove the entry"),
    )
    return replace(found, good=found.good.filter(text != "").select("item_id", "text"))


def _known_movie_check(item_ids: pl.Series) -> Check:
    return checks.known("item_id", item_ids, "is not a movie of movies.dat", "add the movie or remove the line")


def _id_check(column: str) -> Check:
    is_bad = pl.col(column).cast(pl.Int64, strict=False) < 0
    return Check(is_bad, pl.col(column), "is not a whole number", "use the number MovieLens gave")


def _code_check(column: str, codes: Sequence[str]) -> Check:
    what = column.removesuffix("_code").removesuffix("_text")
    reason = f"is not one of the {what} values {', '.join(codes)}"
    return Check(~pl.col(column).is_in(list(codes)), pl.col(column), reason, "correct it")
