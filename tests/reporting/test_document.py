"""A report in Markdown and HTML: nothing that a model or a user wrote is markup, and the page asks for no other file."""

import base64
import html.parser

from spct_jax.reporting import document
from spct_jax.reporting.document import Facts, Heading, Paragraph, Picture, Table, Text

HOSTILE = '</pre><script src="http://x/y.js">alert(1)</script> & `*a*` | b \ud800\x00'
BLOCKS = [
    Heading(HOSTILE, 1),
    Paragraph(HOSTILE),
    Table(["", HOSTILE], [[HOSTILE, "1"], ["other", HOSTILE]], own=1),
    Picture("a.svg", b"<svg/>", HOSTILE),
    Text(HOSTILE, HOSTILE),
    Facts({HOSTILE: HOSTILE}),
]


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts, self.sources = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "data", "action", "onload", "style")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_is_whole_and_asks_for_nothing():
    text = document.to_html(HOSTILE, BLOCKS)
    text.encode()
    page = Page(text)
    assert page.open == [] and "script" not in page.tags and page.tags.count("table") == 1
    assert page.sources == ["data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode()]
    shown = HOSTILE.replace("\ud800", "\ufffd").replace("\x00", "\ufffd")
    assert page.texts.count(shown) == 10  # title, heading, paragraph, three cells, a text and its title, a fact and its name
    assert "url(" not in text and "@import" not in text


def test_markdown_has_the_same_blocks():
    text = document.to_markdown(BLOCKS)
    text.encode()
    assert text.startswith("# \\</pre>\\<script") and "](a.svg)" in text
    lines = text.splitlines()
    (header,) = [index for index, line in enumerate(lines) if line.startswith("| --- |")]
    # The cells' own bars are escaped, so every line has two cells; the first row is ours.
    assert [line.replace("\\|", "").count("|") for line in lines[header - 1 : header + 3]] == [3] * 4
    assert lines[header + 1].startswith("| **\\</pre>") and not lines[header + 2].startswith("| **")
