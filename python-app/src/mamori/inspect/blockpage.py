"""What a client gets in place of what was blocked: a page that says why, or the shortest answer that ends the exchange."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

MAX_SHOWN_CHARACTERS = 200
"""Of an address or a name: long enough to recognise it, short enough to read the page. The rest is an ellipsis."""


@dataclass(frozen=True, slots=True)
class Label:
    """A name in both languages of the page."""

    ja: str
    en: str


@dataclass(frozen=True, slots=True)
class Block:
    """What was blocked and why. `address` is host and path as the client asked, `list_name` the list that has it, `contact`
    whom the reader may ask (a name, a mail address, a telephone number)."""

    address: str
    category: Label
    list_name: Label
    contact: str


_CUT = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"

# No script, no image, no font, no link: nothing is fetched, and nothing of the blocked address can act on the page. The policy
# in the head says the same to the browser.
_HEADERS = (
    "HTTP/1.1 403 Forbidden\r\n"
    "Content-Type: text/html; charset=utf-8\r\n"
    "Content-Length: {length}\r\n"
    "Content-Language: ja, en\r\n"
    "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "Cache-Control: no-store\r\n"
    "Connection: close\r\n"
    "\r\n"
)

_PAGE = """<!DOCTYPE html>
<html lang="ja">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>このページは遮断されました / This page was blocked</title>
<style>
body {{ font-family: sans-serif; line-height: 1.6; max-width: 40em; margin: 2em auto; padding: 0 1em; }}
h1 {{ font-size: 1.4em; border-left: .3em solid #b00; padding-left: .5em; }}
dt {{ font-weight: bold; }}
dd {{ margin: 0 0 .6em 1em; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<main>
<h1>このページは遮断されました</h1>
<p>お使いのネットワークのセキュリティ装置が、このページへの接続を止めました。パソコンの故障ではありません。</p>
<dl>
<dt>アドレス</dt><dd>{address}</dd>
<dt>分類</dt><dd>{category_ja}</dd>
<dt>該当したリスト</dt><dd>{list_ja}</dd>
<dt>お問い合わせ先</dt><dd>{contact}</dd>
</dl>
<p>業務に必要なページの場合は、上記の内容を添えてお問い合わせください。許可することができます。</p>
</main>
<section lang="en">
<h1>This page was blocked</h1>
<p>The security appliance of your network stopped the connection to this page. Your computer is not broken.</p>
<dl>
<dt>Address</dt><dd>{address}</dd>
<dt>Category</dt><dd>{category_en}</dd>
<dt>List</dt><dd>{list_en}</dd>
<dt>Ask</dt><dd>{contact}</dd>
</dl>
<p>If you need this page for your work, please ask with the details above. It can be allowed.</p>
</section>
</body>
</html>
"""


def render_block_page(block: Block, is_head: bool = False) -> bytes:
    """The whole response to a GET, or to a HEAD: the same without its body. The server's connection must end with it."""
    page = _PAGE.format(
        address=_shown(block.address),
        category_ja=_shown(block.category.ja),
        category_en=_shown(block.category.en),
        list_ja=_shown(block.list_name.ja),
        list_en=_shown(block.list_name.en),
        contact=_shown(block.contact),
    ).encode()
    head = _HEADERS.format(length=len(page)).encode()
    return head if is_head else head + page


def render_cut() -> bytes:
    """What ends the exchange of any other method, for a client that is to get more than a reset: 403 without a body. A form that
    was posted to a dangerous site gets no page that could be mistaken for the site's answer."""
    return _CUT


def _shown(text: str) -> str:
    """Text for the page: no markup, no control character, no lone surrogate, no override of the writing direction."""
    cut = text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + "…"
    plain = "".join(character if character.isprintable() or character == "\u3000" else "\ufffd" for character in cut)
    return escape(plain)
