"""What a file is, told by its first bytes."""

import io
import tarfile
import zipfile

import polars as pl
import pytest

from recloop.data.file_kinds import is_utf16, other_kind
from recloop.data.table_config import TableLogConfig
from recloop.data.table_log import read_table_log
from recloop.errors import DataError


def zipped(*names):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return held.getvalue()


def tarred():
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("log.csv"))
    return held.getvalue()


KINDS = [
    (zipped("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook"),
    (zipped("log.csv"), "a zip archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "an old Excel workbook"),
    (b"\n <!DOCTYPE html>\n<html>", "an HTML page"),
    ("\ufeff<HTML>".encode(), "an HTML page"),
    (b"<?xml version='1.0'?><a/>", "an XML file"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n", "a Git LFS pointer"),
    (tarred(), "a tar archive"),
]


@pytest.mark.parametrize(("content", "kind"), KINDS, ids=[kind for _, kind in KINDS])
@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "LOG.CSV.GZ"])
def test_a_file_of_another_kind_is_named_whatever_it_is_called(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"the log must be text, got .* which is {kind}.*; \w+"):
        read_table_log(tmp_path / name, TableLogConfig())


@pytest.mark.parametrize("text", ["user,item\n", '{"user": 1}', "<3,item\n", "PKW,item\n", "версия\n", "a"])
def test_text_is_no_other_kind(text):
    assert other_kind(text.encode()) is None
    assert not is_utf16(text.encode())
    assert is_utf16(text.encode("utf-16"))
    assert is_utf16(("user,item\n" + text).encode("utf-16-le"))


def test_parquet_is_parquet_under_any_name(tmp_path):
    pl.DataFrame({"user": ["a"], "item": ["x"]}).write_parquet(tmp_path / "log.csv")
    assert read_table_log(tmp_path / "log.csv", TableLogConfig()).users["user_id"].to_list() == ["a"]
