"""BYTES OF A PAGE -> ITS MAIN TEXT. Run as a process of its own: `extract.py CONTENT_TYPE SECONDS`.

    stdin: the body -> stdout: {"title": …, "text": …} | {"error": why it can't be read}

Parsers of HTML and PDF are large, and a page may be made to break them or to keep them busy for
hours. In a process it costs its own seconds and memory at most, and it sees no key. It imports
nothing of mem1, so that it starts fast.
"""

import codecs
import io
import json
import re
import sys

MAX_TEXT = 400_000
"""Characters of a page's text."""
MEMORY = 2 << 30
"""Bytes of address space."""
_PDF = b"%PDF-"

CHARSETS = frozenset(
    (
        *("utf-8", "utf-16", "utf-16-le", "utf-16-be", "ascii", "koi8-r", "koi8-u", "mac-roman"),
        *("gb2312", "gbk", "gb18030", "big5", "euc_jp", "shift_jis", "cp932", "iso2022_jp"),
        *("euc_kr", "cp949", "cp866", "cp874", "tis-620"),
        *(f"iso8859-{number}" for number in range(1, 17)),
        *(f"cp{number}" for number in range(1250, 1259)),
    )
)
"""Those of the web; Python knows others, some of them slow, that a page has no use for."""


_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SHOWN = (
    "//text()[not(ancestor::script or ancestor::style or ancestor::title or ancestor::template)]"
)


class ExtractError(Exception):
    """Why a page has no text."""


def extract(body: bytes, content_type: str) -> tuple[str, str]:
    """Title and main text. Args: `content_type`, the header; empty: what the body looks like."""
    if body.startswith(_PDF) or "application/pdf" in content_type:
        return _pdf(body)
    text = decode(body, content_type)
    kind = content_type.partition(";")[0].strip()
    if kind in ("text/html", "application/xhtml+xml", "") and "<" in text:
        return _html(text)
    return "", text


def decode(body: bytes, content_type: str) -> str:
    """By the first that fits the bytes: mark, UTF-8, header, `<meta>`; else cp1252."""
    named = re.findall(r"charset\s*=\s*[\"']?([\w.:-]{1,40})", content_type)[:1]
    head = body[:2048].decode("ascii", "ignore")
    named += re.findall(r"charset\s*=\s*[\"']?([\w.:-]{1,40})", head)[:1]
    # What fits UTF-8 is UTF-8, whatever it's called; but for charsets of seven or sixteen bits.
    narrow = b"\x1b$" in body or b"\0" in body[:200]
    names = [*named, "utf-8"] if narrow else ["utf-8", *named]
    names = [name for mark, name in _MARKS.items() if body.startswith(mark)] + names
    for name in names:
        try:
            codec = codecs.lookup(name).name
            # What calls itself Latin-1 on the web is cp1252.
            codec = "cp1252" if codec == "iso8859-1" else codec
            if codec in CHARSETS:
                return body.decode(codec).removeprefix("\ufeff")
        except (LookupError, ValueError):
            continue
    return body.decode("cp1252", "replace")


def _html(page: str) -> tuple[str, str]:
    import trafilatura
    from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]
    from lxml.html import HTMLParser, document_fromstring

    # The bytes are ours: whatever the page says of its encoding counts no more.
    parser = HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    try:
        tree = document_fromstring(page.replace("\0", "").encode("utf-8", "replace"), parser=parser)
    except etree.LxmlError:
        raise ExtractError("it holds no text") from None
    title = " ".join(" ".join(tree.xpath("//title[1]//text()")).split())
    main = trafilatura.extract(
        tree, include_comments=False, include_tables=True, favor_recall=True, with_metadata=False
    )
    # Too short to have a main part: everything that shows.
    return title, main or "\n".join(line for text in tree.xpath(_SHOWN) if (line := text.strip()))


def _pdf(body: bytes) -> tuple[str, str]:
    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ImportError:
        raise ExtractError("it's a PDF, and pypdf isn't installed") from None
    try:
        reader = PdfReader(io.BytesIO(body))
        parts: list[str] = []
        for page in reader.pages:
            parts.append(page.extract_text())
            if sum(map(len, parts)) > MAX_TEXT:
                break
        return str((reader.metadata or {}).get("/Title", "")), "\n\n".join(parts)
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ExtractError("it's a PDF that is broken or locked") from error


def main() -> None:
    """Read a page, write its text; memory and seconds limited where the system can."""
    content_type, seconds = sys.argv[1:]
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass
    try:
        title, text = extract(sys.stdin.buffer.read(), content_type)
        said = {"title": title[:300], "text": text[:MAX_TEXT]}
        if not text.strip():
            said = {"error": "it holds no text"}
    except ExtractError as error:
        said = {"error": str(error)}
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
