"""The page in place of a blocked one, as a browser and as an HTTP client see it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamori.inspect.blockpage import MAX_SHOWN_CHARACTERS, Block, Label, render_block_page, render_cut
from tests.support.http_transcript import Message, read_responses

BLOCK = Block(
    "bad.example/login",
    Label("フィッシング", "Phishing"),
    Label("危険サイト", "Dangerous sites"),
    "総務部 山田 yamada@office.example",
)
GET = b"GET / HTTP/1.1\r\nHost: bad.example\r\n\r\n"
VOID = {"meta", "br", "hr"}
FETCHING = {"src", "href", "srcset", "action", "data", "poster", "background", "formaction", "content-url"}


class Page(HTMLParser):
    """Checks that every element is closed in order, and keeps text by the language it is in."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.pieces: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)


def answer(response: bytes, request: bytes = GET) -> Message:
    """The one response that these bytes are, to the last byte, told by our own reader."""
    transcript = read_responses([response], request)
    (message,) = transcript.messages
    assert (transcript.error, message.odd, message.complete, message.end) == (None, set(), True, len(response))
    return message


def test_the_page_is_a_whole_response_that_ends_the_connection_and_is_kept_nowhere() -> None:
    message = answer(render_block_page(BLOCK))
    fields = message.response.fields
    assert message.response.status == 403
    assert fields.get("content-type") == "text/html; charset=utf-8"
    assert fields.get("connection") == "close"
    assert fields.get("cache-control") == "no-store"
    assert fields.get("content-length") == str(len(message.data))


def test_the_page_says_in_japanese_then_english_what_was_blocked_by_which_list_and_whom_to_ask() -> None:
    page = Page(answer(render_block_page(BLOCK)).data.decode())
    assert page.pieces.count(BLOCK.address) == 2
    assert page.pieces.count(BLOCK.contact) == 2
    order = [page.pieces.index(text) for text in ("フィッシング", "危険サイト", "Phishing", "Dangerous sites")]
    assert order == sorted(order)
    assert page.pieces.index("このページは遮断されました") < page.pieces.index("This page was blocked")


def test_the_page_fetches_nothing_and_runs_nothing() -> None:
    text = answer(render_block_page(BLOCK)).data.decode()
    page = Page(text)
    assert set(page.tags) <= {"html", "head", "meta", "title", "style", "body", "main", "section", "h1", "p", "dl", "dt", "dd"}
    assert not page.attributes & FETCHING
    assert not any(name.startswith("on") for name in page.attributes)
    assert not re.search(r"url\(|@import|javascript:|https?:", text)


def test_a_head_request_gets_the_same_head_and_no_body() -> None:
    full, head = render_block_page(BLOCK), render_block_page(BLOCK, is_head=True)
    assert full.startswith(head)
    assert head.endswith(b"\r\n\r\n")
    assert answer(head, GET.replace(b"GET", b"HEAD")).raw == b""


@pytest.mark.parametrize(
    "evil",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=y>',
        "</dd></dl>",
        "&lt;b&gt;",
        "{address}",
        "\r\nSet-Cookie: a=b\r\n\r\n",
        "\u202eexe.txt",
    ],
)
def test_what_others_wrote_stays_text(evil: str) -> None:
    plain = Page(answer(render_block_page(BLOCK)).data.decode())
    page = Page(answer(render_block_page(Block(evil, Label(evil, evil), Label(evil, evil), evil))).data.decode())
    assert page.tags == plain.tags
    assert page.attributes == plain.attributes
    shown = evil.replace("\r", "\ufffd").replace("\n", "\ufffd").replace("\u202e", "\ufffd")
    assert page.pieces.count(shown) == 8


def test_a_long_address_is_cut() -> None:
    long = "bad.example/" + "&" * 5000
    page = Page(answer(render_block_page(Block(long, BLOCK.category, BLOCK.list_name, "全角　空白"))).data.decode())
    assert long[:MAX_SHOWN_CHARACTERS] + "…" in page.pieces
    assert "全角　空白" in page.pieces


@given(st.text(max_size=300), st.text(max_size=50))
def test_any_text_makes_a_page(address: str, contact: str) -> None:
    page = Page(answer(render_block_page(Block(address, Label(contact, contact), Label(contact, address), contact))).data.decode())
    assert page.tags.count("dd") == 8


def test_a_cut_is_an_empty_answer_that_ends_the_connection() -> None:
    message = answer(render_cut(), GET.replace(b"GET", b"POST"))
    assert (message.response.status, message.raw) == (403, b"")
    assert message.response.fields.get("connection") == "close"
