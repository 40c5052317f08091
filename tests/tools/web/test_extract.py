"""Bytes become text by the charset that fits them; PDFs too, where pypdf is installed."""

import io
import sys

import pytest

from mem1.tools.web.extract import MAX_TEXT, ExtractError, decode, extract

WORD = "Größe – “naïve”"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (WORD.encode(), "text/plain; charset=utf-8"),
        (WORD.encode(), "text/plain"),
        (WORD.encode(), "text/plain; charset=ascii"),
        (WORD.encode(), "text/plain; charset=iso-8859-1"),
        (WORD.encode(), "text/plain; charset=nonsense"),
        (WORD.encode(), "text/plain; charset=zip"),
        (WORD.encode("utf-8-sig"), "text/plain; charset=windows-1252"),
        (WORD.encode("utf-16"), "text/plain"),
        (WORD.encode("cp1252"), "text/plain"),
        (WORD.encode("cp1252"), "text/plain; charset=utf-8"),
        (WORD.encode("cp1252"), 'text/plain; charset="iso-8859-1"'),
    ],
    ids=str,
)
def test_a_charset_that_doesnt_fit_the_bytes_is_not_believed(body, content_type):
    assert decode(body, content_type) == WORD


def test_the_charset_of_the_page_counts_where_the_header_has_none():
    page = '<html><head><meta charset="shift_jis"></head><body><p>東京</p></body></html>'
    assert extract(page.encode("shift_jis"), "text/html") == ("", "東京")
    header = "text/html; charset=shift_jis"
    assert extract(page.replace("shift_jis", "utf-8").encode("shift_jis"), header) == ("", "東京")


def test_charsets_of_seven_bits_are_believed():
    page = "<p>東京</p>".encode("iso2022_jp")
    assert extract(page, "text/html; charset=iso-2022-jp") == ("", "東京")


def test_what_isnt_html_stays_as_it_is():
    assert extract(b'{"a": "<p>1"}', "application/json") == ("", '{"a": "<p>1"}')
    assert extract(b"a < b", "text/plain") == ("", "a < b")
    assert extract(b"<p>a</p>", "") == ("", "a")


@pytest.mark.parametrize(
    "page",
    [
        *(b"", b"\x00", b"<", b"<html>", b"<!--", b"<" * 100_000, bytes(range(256)) * 100),
        *(b"<?xml version='1.0' encoding='utf-16'?><p>x</p>", b"<![CDATA[" * 1000),
        *(b"<div>" * 20_000 + b"x", b"<title>" * 1000, b"<!DOCTYPE html [<!ENTITY a 'b'>]>&a;"),
    ],
    ids=lambda page: ascii(page[:12]),
)
def test_broken_html_is_text_or_a_reason(page):
    try:
        title, text = extract(page, "text/html")
    except ExtractError:
        return
    assert (type(title), type(text)) == (str, str)
    assert len(text) <= MAX_TEXT


def test_no_file_of_this_machine_gets_into_a_page():
    page = b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><html><p>a &x; b</p></html>'
    assert "root:" not in extract(page, "text/html")[1]
    assert "root:" not in extract(page, "application/xhtml+xml")[1]


def pdf(text: str) -> bytes:
    """A PDF of one page, written by hand."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R"
        b"/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Title(A paper)>>",
    ]
    out, places = io.BytesIO(), []
    out.write(b"%PDF-1.4\n")
    for number, body in enumerate(objects, start=1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 7\n0000000000 65535 f \n")
    out.write(b"".join(b"%010d 00000 n \n" % place for place in places))
    out.write(b"trailer<</Size 7/Root 1 0 R/Info 6 0 R>>\nstartxref\n%d\n%%%%EOF" % start)
    return out.getvalue()


def test_a_pdf_is_read_whatever_it_is_called():
    pytest.importorskip("pypdf", reason="pypdf reads PDFs: pip install pypdf")
    paper = pdf("Memory is constant.")
    assert extract(paper, "application/pdf") == ("A paper", "Memory is constant.")
    assert extract(paper, "text/html") == ("A paper", "Memory is constant.")


def test_without_pypdf_a_pdf_is_a_plain_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(ExtractError, match="it's a PDF, and pypdf isn't installed"):
        extract(pdf("x"), "application/pdf")


@pytest.mark.parametrize("size", [5, 9, 60, 200, 400])
def test_a_torn_pdf_is_a_plain_reason(size):
    pytest.importorskip("pypdf", reason="pypdf reads PDFs: pip install pypdf")
    try:
        extract(pdf("Memory is constant.")[:size], "application/pdf")
    except ExtractError as error:
        assert str(error) == "it's a PDF that is broken or locked"  # noqa: PT017
