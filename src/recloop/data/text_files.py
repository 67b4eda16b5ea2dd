"""Text files, plain or ``.gz``, with line numbers: lines, lines of fields, objects one a line, and one JSON value.

UTF-16, empty and damaged files are refused with one clear error.
"""

from __future__ import annotations

import ast
import codecs
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import polars as pl

from recloop.data import checks, file_kinds
from recloop.data.checks import Check, Rows
from recloop.errors import DataError

ROWS_AT_ONCE = 200_000
ENCODING = "data.table.encoding"
MAX_LINE_BYTES = 8 << 20  # guess: no cell is longer, and reading a longer one takes many times its size
MAX_UNPACKED, FREE_BYTES = 100, 64 << 20  # times its size that a file may unpack to, and bytes that any file may
MAX_WHOLE = 2**53  # floats beyond it are not all the whole numbers they look like
_HALF = re.compile(r"\\[uU](0000)?[dD]")  # of a surrogate pair, if the other half is not beside it


def require_file(path: Path, what: str) -> None:
    """DataError if the path is no file with content."""
    if path.is_dir():
        raise DataError(f"{what} must be a file, got {path} which is a folder; give the file in it")
    if not path.is_file():
        raise DataError(f"{what} must be a file, got {path} which is not there; check the path")
    if path.stat().st_size == 0:
        raise DataError(f"{what} must hold rows, got {path} which is empty; fetch the file again")


@contextmanager
def open_bytes(path: Path, what: str, encoding: str | None = None) -> Generator[IO[bytes]]:
    """The bytes of a text file, unpacked if packed with gzip, in UTF-8 if written in another `encoding`.

    Raises:
        DataError: absent, empty, damaged gzip, a file of another kind such as a page or an archive, UTF-16 that
            was not told, or text that is not in the encoding.
    """
    require_file(path, what)
    with path.open("rb") as raw:
        is_packed = raw.peek(2)[:2] == file_kinds.GZIP
        unpacked = _Unpacked(gzip.GzipFile(fileobj=raw), path, what) if is_packed else None
        with raw if unpacked is None else io.BufferedReader(unpacked) as file:
            try:
                _require_text(file.peek(file_kinds.HEAD_BYTES)[: file_kinds.HEAD_BYTES], path, what, encoding)
                yield cast("IO[bytes]", file) if encoding is None else _recoded(file.read(), path, what, encoding)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise DataError(f"{what} must be whole, got {path} with: {error}; fetch the file again") from error


class _Unpacked(io.RawIOBase):
    """The bytes of a gzip file; DataError where they are far more than data packs into so few."""

    def __init__(self, packed: gzip.GzipFile, path: Path, what: str) -> None:
        self._packed, self._path, self._what = packed, path, what
        self._left = max(FREE_BYTES, MAX_UNPACKED * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        num = self._packed.readinto(buffer)
        self._left -= num
        if self._left < 0:
            raise DataError(
                f"{self._what} must unpack to at most {MAX_UNPACKED} times its size, got {self._path} with more; if it "
                f"is what you expect, unpack it yourself"
            )
        return num


def require_short_lines(raw: bytes, path: Path, what: str) -> None:
    """DataError where a line is so long that it is none: more than twice `MAX_LINE_BYTES`, or less."""
    starts = range(0, len(raw) - MAX_LINE_BYTES, MAX_LINE_BYTES)
    if any(raw.find(b"\n", start, start + MAX_LINE_BYTES) < 0 for start in starts):
        raise _long_line(path, what)


def _long_line(path: Path, what: str) -> DataError:
    return DataError(
        f"{what} must have lines of at most {MAX_LINE_BYTES >> 20} MiB, got a longer one in {path}; write it again"
    )


def _require_text(head: bytes, path: Path, what: str, encoding: str | None) -> None:
    kind = file_kinds.other_kind(head)
    if kind is not None:
        raise DataError(f"{what} must be text, got {path} which is {kind[0]}; {kind[1]}")
    if encoding is None and file_kinds.is_utf16(head):
        raise DataError(
            f"{what} must be UTF-8, got {path} which is UTF-16; save it as UTF-8, or for a table give {ENCODING} utf-16"
        )


def _recoded(raw: bytes, path: Path, what: str, encoding: str) -> IO[bytes]:
    try:
        return io.BytesIO(raw.decode(encoding).encode())
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        got = raw[: error.start].rsplit(b"\n", 1)[-1] + raw[error.start :].split(b"\n", 1)[0]
        raise DataError(
            f"{what} must be {encoding} as {ENCODING} says, got {path} with line {line} that is not: "
            f"{repr(got[:60])[1:]}; give the encoding it is written in"
        ) from error


def read_lines(path: Path, what: str) -> Rows:
    """The lines of a UTF-8 or Latin-1 file that are not blank, as ``line`` and ``text``; DataError as `open_bytes`.

    A file is Latin-1 when most of its lines with other than ASCII characters are not UTF-8. Lines in the
    other encoding are bad rows: they would be read as wrong letters.
    """
    with open_bytes(path, what) as file:
        raw = file.read().removeprefix(codecs.BOM_UTF8)
    require_short_lines(raw, path, what)
    bad = checks.no_bad_rows()
    try:
        texts = raw.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        texts, bad = _decode_mixed(path, raw.split(b"\n"))
    lines = numbered(texts).filter(~pl.col("line").is_in(bad["line"].implode()))
    return _require_rows(Rows(path, lines, bad), what)


def numbered(texts: Sequence[str]) -> pl.DataFrame:
    """``line`` (1 for the first) and ``text`` of the lines that are not blank, without carriage returns."""
    lines = pl.DataFrame({"text": texts}, schema={"text": pl.String}).with_row_index("line", offset=1)
    return lines.with_columns(pl.col("text").str.strip_suffix("\r")).filter(pl.col("text").str.len_bytes() > 0)


def _decode_mixed(path: Path, raw_lines: list[bytes]) -> tuple[list[str], pl.DataFrame]:
    is_read = {line: is_utf8(raw) for line, raw in enumerate(raw_lines, start=1) if not raw.isascii()}
    encoding = "utf-8" if 2 * sum(is_read.values()) > len(is_read) else "latin-1"
    texts = [raw.decode(encoding, errors="replace") for raw in raw_lines]
    odd = [(line, texts[line - 1]) for line, fits in is_read.items() if fits != (encoding == "utf-8")]
    reason = f"is not in the encoding of the other lines ({encoding})"
    return texts, checks.bad_rows(path, odd, reason, "save the whole file as UTF-8")


def is_utf8(raw: bytes) -> bool:
    """Whether the bytes are UTF-8."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def read_fields(path: Path, what: str, separator: str, names: Sequence[str], *further: Check) -> Rows:
    """`read_lines` split into fields, each a column of text; bad rows have other numbers of them or fail a check."""
    lines = read_lines(path, what)
    num_fields = Check(
        pl.col("text").str.count_matches(separator, literal=True) + 1 != len(names),
        pl.col("text"),
        f"does not have the {len(names)} fields {separator.join(names)}",
        "restore the line from its source",
    )
    return Rows(path, split_fields(lines.good, separator, names), lines.bad).check(num_fields, *further)


def split_fields(lines: pl.DataFrame, separator: str, names: Sequence[str]) -> pl.DataFrame:
    """The lines with a column of text per name; missing fields are null, what is beyond the names is not read."""
    fields = pl.col("text").str.split_exact(separator, len(names) - 1).struct.rename_fields(list(names))
    return lines.with_columns(fields.alias("fields")).unnest("fields")


def read_objects(
    path: Path,
    what: str,
    cells: Callable[[dict[str, Any]], dict[str, Any]],
    schema: Mapping[str, Any],
    encoding: str | None = None,
) -> Rows:
    """A table from a file of one object a line: JSON, or a Python literal as in Amazon's metadata of 2014 (never run).

    Args:
        cells: the cells of an object, by column.
        schema: the types of the columns; `cells` may add some while the file is read.

    Raises:
        DataError: as `open_bytes`, or only blank lines.
    """
    frames: list[pl.DataFrame] = []
    odd: list[tuple[int, str]] = []
    batch: list[dict[str, Any]] = []

    def finish_batch() -> None:  # objects take far more memory than a frame
        frames.append(pl.DataFrame(batch, schema={"line": pl.UInt32, **schema}))
        batch.clear()

    for line, found, text in _numbered_objects(path, what, encoding):
        if found is None:
            odd.append((line, text))
            continue
        batch.append(cells(found) | {"line": line})
        if len(batch) == ROWS_AT_ONCE:
            finish_batch()
    finish_batch()
    other, broken = ([one for one in odd if ("\ufffd" in one[1]) == is_other] for is_other in (True, False))
    bad = pl.concat(
        [
            checks.bad_rows(path, other, "is not UTF-8", f"save it as UTF-8, or for a table give {ENCODING}"),
            checks.bad_rows(path, broken, "is not a JSON object with each key once", "restore the line"),
        ]
    ).sort("line")
    return _require_rows(Rows(path, pl.concat(frames, how="diagonal"), bad), what)


def read_object_table(
    path: Path, what: str, is_wanted: Callable[[str], bool], joined_by: Mapping[str, str], encoding: str | None = None
) -> tuple[Rows, tuple[str, ...]]:
    """The cells of a file of one object a line, as text; DataError as `open_bytes`, or no line is an object.

    Args:
        is_wanted: of a key, whether it is read.
        joined_by: keys, by `plain_name`, whose value may be a list of plain values, with what joins these in the cell.

    Returns:
        ``line`` and the columns that hold a plain value anywhere, null where they do not; all keys, in the
        order of their first places. A key called ``line`` is not read.
    """
    names: dict[str, bool] = {}
    schema: dict[str, Any] = {}

    def cells(found: dict[str, Any]) -> dict[str, Any]:
        for name in [name for name in found if name not in names]:
            names[name] = name != "line" and is_wanted(name)
            if names[name]:
                schema[name] = pl.String
        return {
            name: plain_text(value, joined_by.get(plain_name(name))) for name, value in found.items() if names[name]
        }

    rows = read_objects(path, what, cells, schema, encoding)
    if rows.good.is_empty():
        line, text = rows.bad.row(0)[1:3]
        raise DataError(
            f"{what} must hold a JSON object a line, got {path} without any (line {line}: {text[:80]!r}); "
            f"save it as JSON lines in UTF-8, or say with {ENCODING} how it is written"
        )
    rows = rows.select(*(one.name for one in rows.good if one.null_count() < len(one)))
    return rows.with_columns(pl.col(pl.String).str.strip_chars()), tuple(names)


def plain_name(name: str) -> str:
    """A column's name without what does not tell columns apart: case and surrounding space."""
    return name.strip().casefold()


def _require_rows(rows: Rows, what: str) -> Rows:
    if rows.good.is_empty() and rows.bad.is_empty():
        raise DataError(f"{what} must hold rows, got {rows.file} which has only blank lines; fetch the file again")
    return rows


def plain_text(value: Any, separator: str | None = None) -> str | None:
    """A text or number, or with a separator a list of them, as text; None for any other value, and for NaN.

    Example:
        >>> plain_text(2011.0), plain_text(float("nan")), plain_text(["a", None, 2.5], "|")
        ('2011', None, 'a|2.5')
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value) if value.is_integer() and abs(value) < MAX_WHOLE else value)
    if isinstance(value, str | int):
        return str(value)
    if separator is None or not isinstance(value, list):
        return None
    return separator.join(text for one in cast("list[Any]", value) if (text := plain_text(one)) is not None)


def require_objects(
    path: Path, what: str, form: str, fits: Callable[[Mapping[str, Any]], bool]
) -> list[dict[str, Any]]:
    """The objects of a file of one a line; DataError, which tells the `form`, at the first that does not fit."""
    rows: list[dict[str, Any]] = []
    for line, found, text in _numbered_objects(path, what):
        if found is None or not fits(found):
            raise DataError(
                f"{path}, line {line} must be an object in UTF-8 with {form}, got {text[:60]!r}; fetch the file again"
            )
        rows.append(found)
    return rows


def first_keys(path: Path, what: str, num_lines: int = 100) -> dict[str, None]:
    """The keys of the objects in the first lines of a file of one a line, in order; DataError as `open_bytes`."""
    first = islice(_numbered_objects(path, what), num_lines)
    return dict.fromkeys(key for _, found, _ in first if found is not None for key in found)


def _numbered_objects(
    path: Path, what: str, encoding: str | None = None
) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    """Line number, object (None where the line is no object in UTF-8) and text of the lines that are not blank."""
    with open_bytes(path, what, encoding) as file:
        for line, raw in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1):
            if len(raw) > MAX_LINE_BYTES:
                raise _long_line(path, what)
            text = raw.decode("utf-8", errors="replace").strip().removeprefix("\ufeff")
            if text:
                yield line, _parse_object(text), text


def _parse_object(text: str) -> dict[str, Any] | None:
    if "\ufffd" in text:
        return None
    try:
        found: Any = json.loads(text, object_pairs_hook=_each_key_once)
    except DataError:
        return None
    except (ValueError, RecursionError):  # ValueError: not JSON, or a number of more than 4,300 digits
        try:
            tree = ast.parse(text, mode="eval")
            keys = [ast.dump(key) for key in tree.body.keys if key] if isinstance(tree.body, ast.Dict) else []
            found = ast.literal_eval(tree) if len(set(keys)) == len(keys) else None
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    is_object = isinstance(found, dict) and all(isinstance(key, str) for key in cast("dict[Any, Any]", found))
    if not is_object or _has_half_character(text, found):
        return None
    return cast("dict[str, Any]", found)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise DataError(f"each key once in an object, got {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def read_json(path: Path, what: str) -> Any:
    """The JSON value of a file; DataError as `open_bytes`, if it is no JSON in UTF-8, or an object has a key twice."""
    with open_bytes(path, what) as file:
        raw = file.read()
    try:
        text = raw.decode("utf-8-sig")
        found: Any = json.loads(text, object_pairs_hook=_each_key_once)
    except DataError as error:
        raise DataError(f"{what} must have {error} in {path}; keep one") from error
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, or thousands of digits
        raise DataError(f"{what} must be JSON in UTF-8, got {path} with {error}; fetch the file again") from error
    if _has_half_character(text, found):
        raise DataError(f"{what} must be text in UTF-8, got {path} with half of a surrogate pair; fetch the file again")
    return found


def read_json_object(path: Path, what: str) -> dict[str, Any]:
    """The JSON object of a file; DataError as `read_json`, or if it is no object or an empty one."""
    found = read_json(path, what)
    if not isinstance(found, dict) or not found:
        raise DataError(f"{what} must be one JSON object with entries, got another shape in {path}; see docs/data.md")
    return cast("dict[str, Any]", found)


def _has_half_character(text: str, found: Any) -> bool:
    """Whether a text in `found`, read from `text`, is half of a surrogate pair, which UTF-8 cannot hold."""
    if not _HALF.search(text):
        return False
    try:
        json.dumps(found, ensure_ascii=False, default=repr, skipkeys=True).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
