"""Delimiter and quoting are found from the file; fields stay text; pandas agrees on what both read."""

from __future__ import annotations

import csv
import io

import pandas
import pytest

from tunewright.data.tables import Layout, table_layout, table_rows
from tunewright.errors import DataError


def rows(content: str, layout: Layout | None = None) -> list[dict]:
    layout = layout or table_layout(content, ",")
    return [dict(row.values) for row in table_rows(io.BytesIO(content.encode()), "x", layout)]


def test_pandas_agrees():
    frame = pandas.DataFrame(
        {"text": ['a "b"', "c,d", "e\nf", "", " g ", "日本"], "label": ["1", "2.0", "x", "", "NA", "0"]}
    )
    content = frame.to_csv(index=False)
    assert rows(content) == frame.to_dict("records")


@pytest.mark.parametrize(
    ("header", "usual", "delimiter"),
    [
        ("text,label", ",", ","),
        ("text;label", ",", ";"),
        ("text\tlabel", ",", "\t"),
        ("text|label|id", ",", "|"),
        ("text", ",", ","),
        ("text", "\t", "\t"),
        ('"text; and more",label', ",", ","),
        ("text,label", "\t", ","),
        ("", "\t", "\t"),
    ],
)
def test_the_delimiter_is_the_headers(header: str, usual: str, delimiter: str):
    assert table_layout(f"{header}\nx;y|z\t,\n", usual).delimiter == delimiter


def test_tabs_without_quoting():
    content = 'text\tlabel\n"Good" film\t1\nhe said "no\t0\n'
    layout = table_layout(content, "\t")
    assert layout == Layout("\t", quoted=False)
    assert [row["text"] for row in rows(content, layout)] == ['"Good" film', 'he said "no']


def test_tabs_with_quoting():
    content = 'text\tlabel\n"a\tb"\t1\n'
    assert rows(content, table_layout(content, "\t")) == [{"text": "a\tb", "label": "1"}]


def test_a_row_with_a_tab_too_many_is_refused():
    with pytest.raises(DataError, match=r"x:2: 3 fields .* remove the delimiter where it holds a tab"):
        rows("text\tlabel\na\tb\tc\n", Layout("\t", quoted=False))


def test_columns_without_a_name_get_one():
    assert rows(",text, label \n0,a,b\n") == [{"column 1": "0", "text": "a", "label": "b"}]


def test_one_column():
    assert rows('text\nfine\n\n"a, b"\n') == [{"text": "fine"}, {"text": "a, b"}]


def test_a_field_may_be_longer_than_the_librarys_limit():
    long = "x" * 200_000
    assert csv.field_size_limit() >= 131_072
    assert rows(f"text,label\n{long},1\n") == [{"text": long, "label": "1"}]


def test_a_quote_that_is_never_closed_does_not_load_the_file():
    content = "text,label\na,1\n" + '"b,1\n' + ("x" * 1_000_000 + "\n") * 20
    with pytest.raises(DataError, match="x:3: a field of this row is longer than 16 MB"):
        rows(content)
