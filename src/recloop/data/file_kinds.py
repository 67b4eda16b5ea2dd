"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import codecs
import re

GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
HEAD_BYTES = 4096
_SAVE_SHEET = "save the sheet as CSV in UTF-8"
_UNPACK = "unpack it"
_KINDS = (
    (rb"PK\x03\x04(?s:.*)(?:xl/|\[Content_Types\])", "an Excel workbook", _SAVE_SHEET),
    (rb"PK\x03\x04", "a zip archive", _UNPACK),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook", _SAVE_SHEET),
    (rb"\x1f\x8b", "packed with gzip twice", _UNPACK),
    (rb"BZh[1-9]1AY&SY", "packed with bzip2", _UNPACK),
    (rb"\xfd7zXZ\x00", "packed with xz", _UNPACK),
    (rb"\x28\xb5\x2f\xfd", "packed with zstd", _UNPACK),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (rb"(?s:.{257})ustar", "a tar archive", _UNPACK),
    (rb"PAR1", "a Parquet file", "give it unpacked where a table is read"),
    (rb"SQLite format 3\x00", "an SQLite database", "write the table as CSV in UTF-8"),
    (rb"%PDF-", "a PDF", "write the table as CSV in UTF-8"),
    (rb"version https://git-lfs", "a Git LFS pointer and not the data", "fetch the data with: git lfs pull"),
    (rb"(?i)(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|body|!--)", "an HTML page", "fetch the file itself, signed in"),
    (rb"(?:\xef\xbb\xbf)?\s*<\?xml", "an XML file", "write the table as CSV in UTF-8"),
)


def other_kind(head: bytes) -> tuple[str, str] | None:
    """What a file is that is no text, and what to do with it; None for text.

    Example:
        >>> other_kind(b"<!DOCTYPE html><html>")
        ('an HTML page', 'fetch the file itself, signed in')
    """
    return next(((kind, do) for start, kind, do in _KINDS if re.match(start, head)), None)


def is_utf16(head: bytes) -> bool:
    """Whether the bytes are marked as UTF-16, or most of every other one are zero."""
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return True
    return len(head) > 3 and any(2 * head[start::2].count(0) > len(head[start::2]) for start in (0, 1))
