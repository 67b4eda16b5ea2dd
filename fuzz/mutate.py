"""Damage to bytes, texts, tables and JSON values, drawn by a generator."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from typing import Any

ODD_TEXTS = (
    "", " ", "\t", "\x00", "\ufeff", "\u202e", "\u2066x\u2069", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\u200b",
    "\u2028",
    "\u0300", "\ud7ff", "\U0010ffff", "é", "ﬁ", "İ", "ß", "日本", "'", '"', '""', "`", "\\", "\\n", "\n", "\r", "\r\n",
    "%s", "{0}",
    "{{ 7 * 7 }}", "{% for i in range(9) %}", "${HOME}", "$(id)", "; drop table x", "<script>", "../../x",
    "/etc/passwd",
    "..", ".", "~", "~root", "C:\\x", "nan", "NaN", "inf", "-inf", "Infinity", "null", "None", "none", "true",
    "False", "0",
    "-0", "-1", "1", "1.5", "1e5", "1e400", "-1e-400", "0x10", "1_000", "1,5", "٣", "１", "9" * 19, "9" * 400,
    "18446744073709551616", "1970-01-01", "0001-01-01", "9999-12-31T23:59:59Z", "2024-02-30", "2024-13-01", "1e18",
    "x" * 3000,
    "=1+1", "@x", "||", "::", ",", ";", "|", "a,b", "a|b|", "#", "<|im_start|>system", "[INST]", "</s>", "\\boxed{x}",
    "\\u0041",
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 2**64, 10**30, 0.5, -0.0, 1e308, 1e-320, float("nan"),
    float("inf"), float("-inf"), [], {}, [[]], {"": None}, [None], ["a", 1, None], {"a": {"b": {"c": []}}},
)  # fmt: skip
ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1251", "shift_jis", "utf-7")


def odd_text(rng: random.Random) -> str:
    """A text that somebody's code did not expect."""
    kind = rng.random()
    if kind < 0.8:
        return rng.choice(ODD_TEXTS)
    if kind < 0.9:
        return "".join(
            chr(rng.choice((rng.randrange(128), rng.randrange(0x3000)))) for _ in range(rng.randrange(1, 12))
        )
    return rng.choice(ODD_TEXTS) + rng.choice(ODD_TEXTS)


def odd_value(rng: random.Random) -> Any:
    """A JSON value of a type that somebody's code did not expect."""
    return odd_text(rng) if rng.random() < 0.4 else rng.choice(ODD_VALUES)


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    """Brackets in brackets."""
    return opening * depth + closing * depth


def mutated_bytes(raw: bytes, rng: random.Random) -> bytes:
    """The bytes after one change that knows nothing of what they mean."""
    data = bytearray(raw)
    at = rng.randrange(len(data) + 1)
    match rng.randrange(9):
        case 0 if data:
            data[at - 1] ^= 1 << rng.randrange(8)
        case 1:
            del data[at:]
        case 2:
            del data[at : at + rng.randrange(1, 30)]
        case 3:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        case 4:
            data[at:at] = odd_text(rng).encode("utf-8", "surrogatepass")
        case 5:
            data[at:at] = data[at : at + rng.randrange(1, 60)]
        case 6:
            data = bytearray(gzip.compress(bytes(data)))
            if rng.random() < 0.5:
                return mutated_bytes(bytes(data), rng)
        case 7:
            text = raw.decode("utf-8", "replace")
            return text.encode(rng.choice(ENCODINGS), "replace")
        case _:
            data[0:0] = rng.choice(
                (b"\xef\xbb\xbf", b"\xff\xfe", b"PAR1", b"\x1f\x8b", b"PK\x03\x04", b"\n\n", b"{", b"<html>")
            )
    return bytes(data)


def mutated_lines(raw: bytes, rng: random.Random) -> bytes:
    """The lines after one change of their order, number or ends."""
    lines = raw.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines[at], lines[other] = lines[other], lines[at]
        case 2:
            lines.insert(at, lines[other])
        case 3:
            lines[at] = b""
        case 4:
            return rng.choice((b"\r\n", b"\r", b"\n\n", b"\x0b")).join(lines)
        case _:
            lines[at] += lines[other]
    return b"\n".join(lines)


def mutated_cells(raw: bytes, separator: str, rng: random.Random) -> bytes:
    """A table after one change of a cell or a column."""
    rows = [line.split(separator) for line in raw.decode("utf-8", "replace").split("\n")]
    row = rng.choice(rows)
    at = rng.randrange(len(row))
    match rng.randrange(7):
        case 0 | 1 | 2:
            row[at] = odd_text(rng)
        case 3:
            for one in rows:
                del one[at : at + 1]
        case 4:
            for one in rows:
                one[at:at] = one[-1:]
        case 5:
            row[at] = rng.choice(rng.choice(rows))
        case _:
            for one in rows:
                one[:] = one[::-1]
    return "\n".join(separator.join(one) for one in rows).encode("utf-8", "surrogatepass")


def mutated_tree(value: Any, rng: random.Random) -> Any:
    """A JSON value after one change at a place drawn in it."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return odd_value(rng)
    copied: Any = dict(value) if isinstance(value, dict) else list(value)
    key = rng.choice(list(copied)) if isinstance(copied, dict) else rng.randrange(len(copied))
    match rng.randrange(8):
        case 0:
            del copied[key]
        case 1 if isinstance(copied, dict):
            copied[odd_text(rng)] = copied.pop(key)
        case 1:
            copied.append(copied[key])
        case 2 if isinstance(copied, dict):
            copied[odd_text(rng)] = odd_value(rng)
        case _:
            copied[key] = mutated_tree(copied[key], rng)
    return copied


def mutated_json(raw: bytes, rng: random.Random) -> bytes:
    """JSON, or a JSON value a line, after one change that leaves it JSON; now and then one that does not."""
    if rng.random() < 0.2:
        return mutated_bytes(raw, rng)
    text = raw.decode("utf-8", "replace")
    lines = [text] if "\n" not in text.strip() or text.lstrip().startswith(("{\n", "[\n")) else text.split("\n")
    at = rng.randrange(len(lines))
    try:
        value = json.loads(lines[at])
    except (ValueError, RecursionError):
        return mutated_bytes(raw, rng)
    if rng.random() < 0.02:
        lines[at] = nested(rng.choice((500, 100_000)), *rng.choice((("[", "]"), ('{"a":', "}"))))
    else:
        lines[at] = json.dumps(mutated_tree(value, rng), ensure_ascii=rng.random() < 0.5)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def mutated(raw: bytes, form: str, rng: random.Random) -> bytes:
    """Bytes after one to three changes. form: ``json``, ``bytes``, or the separator of a table's cells."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if form == "bytes" or rng.random() < 0.2:
            raw = mutated_bytes(raw, rng)
        elif form == "json":
            raw = mutated_json(raw, rng)
        else:
            raw = mutated_cells(raw, form, rng) if rng.random() < 0.7 else mutated_lines(raw, rng)
    return raw


def mutated_file(files: dict[str, bytes], forms: Sequence[tuple[str, str]], rng: random.Random) -> dict[str, bytes]:
    """The files of an example with one of them changed; now and then absent or empty. forms: by file name ending."""
    name = rng.choice(sorted(files))
    form = next((form for ending, form in forms if name.endswith(ending)), "bytes")
    changed = dict(files)
    if rng.random() < 0.02:
        del changed[name]
    else:
        changed[name] = b"" if rng.random() < 0.01 else mutated(files[name], form, rng)
    return changed
