"""The forms in which GroupLens publishes MovieLens, told by their files, and the fields of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from recloop.data.checks import Check, Rows
from recloop.data.text_files import read_fields, read_lines
from recloop.errors import DataError

RATING_FIELDS = ("user_id", "item_id", "rating_text", "time_text")
MOVIE_FIELDS = ("item_id", "title_year", "genres")
CSV_RATINGS, CSV_MOVIES = "userId,movieId,rating,timestamp", "movieId,title,genres"
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
NO_GENRES = "(no genres listed)"


@dataclass(frozen=True, slots=True)
class Form:
    """One published form: what it is called, its files, and whether ratings are half stars from 0.5."""

    name: str
    ratings: str
    movies: str
    users: str | None
    has_halves: bool

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.ratings, self.movies, self.users)))


ML_100K = Form("ml-100k", "u.data", "u.item", "u.user", has_halves=False)
ML_1M = Form("ml-1m", "ratings.dat", "movies.dat", "users.dat", has_halves=False)
ML_10M = Form("ml-10m", "ratings.dat", "movies.dat", None, has_halves=True)
ML_CSV = Form("csv", "ratings.csv", "movies.csv", None, has_halves=True)
FORMS = (ML_100K, ML_1M, ML_10M, ML_CSV)


def movielens_form(folder: Path, say: Callable[[str], None]) -> Form:
    """The form that a folder's files are of; `say` takes it, DataError if they are of none or of two."""
    wanted = "; ".join(f"{', '.join(form.files)} ({form.name})" for form in FORMS)
    if not folder.is_dir():
        got = "a file" if folder.exists() else "not there"
        raise DataError(f"MovieLens must be a folder, unpacked, with {wanted}; got {folder} which is {got}; check it")
    found = _forms_in(folder)
    if len(found) > 1:
        got = " and ".join(f"{', '.join(form.files)}" for form in found)
        raise DataError(f"MovieLens must be of one form, got {got} in {folder}; move one of them out")
    if not found:
        inside = next((one for one in sorted(folder.iterdir()) if one.is_dir() and _forms_in(one)), None)
        names = ", ".join(sorted(one.name for one in folder.iterdir())[:10]) or "an empty folder"
        do = "fetch the missing, or read your own files with data.name table" if inside is None else f"give {inside}"
        raise DataError(f"MovieLens must be a folder with {wanted}; got {names} in {folder}; {do}")
    say(f"read as MovieLens of the form {found[0].name}: {', '.join(found[0].files)}")
    return found[0]


def _forms_in(folder: Path) -> list[Form]:
    found = [form for form in FORMS if all((folder / file).is_file() for file in form.files)]
    return [form for form in found if not (form is ML_10M and ML_1M in found)]


def rating_fields(folder: Path, form: Form) -> Rows:
    """`RATING_FIELDS` of the ratings, as text."""
    path, what = folder / form.ratings, "MovieLens ratings"
    if form is not ML_CSV:
        return read_fields(path, what, "\t" if form is ML_100K else "::", RATING_FIELDS)
    return _without_header(read_fields(path, what, ",", RATING_FIELDS), what, CSV_RATINGS)


def movie_fields(folder: Path, form: Form) -> Rows:
    """`MOVIE_FIELDS` of the movies, as text; genres are separated by ``|``."""
    path, what = folder / form.movies, "MovieLens movies"
    if form is ML_100K:
        flags = tuple(f"genre_{name}" for name in GENRES_100K)
        rows = read_fields(path, what, "|", ("item_id", "title_year", "released", "video", "address", *flags))
        named = [pl.when(pl.col(f"genre_{name}") == "1").then(pl.lit(name)) for name in GENRES_100K[1:]]
        genres = pl.concat_str(named, separator="|", ignore_nulls=True).replace("", NO_GENRES)
        return rows.select("line", "item_id", "title_year", genres=genres)
    if form is not ML_CSV:
        return read_fields(path, what, "::", MOVIE_FIELDS)
    rows = _without_header(read_lines(path, what), what, CSV_MOVIES)
    # Only titles have commas and quotes, and no cell has a line end.
    parts = pl.col("text").str.extract_groups(r'^([^,"]*),(.*),([^,"]*)$').struct.rename_fields(list(MOVIE_FIELDS))
    is_quoted, title = pl.col("title_year").str.contains(r'^".*"$'), pl.col("title_year")
    plain = title.str.slice(1, title.str.len_chars() - 2).str.replace_all('""', '"', literal=True)
    rows = replace(rows, good=rows.good.with_columns(parts.alias("fields")).unnest("fields"))
    reason = f"does not have the 3 fields {CSV_MOVIES}"
    rows = rows.check(Check(pl.col("genres").is_null(), pl.col("text"), reason, "restore the line from its source"))
    return rows.with_columns(title_year=pl.when(is_quoted).then(plain).otherwise(title))


def _without_header(rows: Rows, what: str, header: str) -> Rows:
    _, first = min([*rows.good.select("line", "text").head(1).rows(), *rows.bad.select("line", "value").head(1).rows()])
    if first != header:
        raise DataError(
            f"{what} must begin with the line {header}, got {first[:80]!r} in {rows.file}; fetch the file again, or "
            f"read your own table with data.name table"
        )
    return replace(rows, good=rows.good.slice(1))
