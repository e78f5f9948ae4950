"""What a client gets instead of what was blocked: a page, a bare refusal, a TLS alert. Pure."""

from __future__ import annotations

from mamori.inspect.blockpage import Block, Label, render_block_page, render_cut
from mamori.inspect.http1_events import RequestReceived
from mamori.inspect.judge import Match

TLS_ACCESS_DENIED = bytes((21, 3, 3, 0, 2, 2, 49))
"""An alert record: fatal, access_denied (RFC 8446, section 6.2: a valid certificate was presented, but access control forbids it).
Browsers show a failed connection and do not try again, as they do after a reset."""

_VIRUS_LIST = Label("ウイルス検査", "Virus scan")
_SAFE_METHODS = ("GET", "HEAD")


def answer_request(request: RequestReceived, match: Match, contact: str) -> bytes:
    """The whole response to a blocked request: the page for who reads one, 403 without a body for the rest."""
    if request.method not in _SAFE_METHODS:
        return render_cut()
    address = str(request.urls[0]) if request.urls else request.target
    return render_block_page(Block(address, match.category_label, match.list_label, contact), request.method == "HEAD")


def answer_infected(request: RequestReceived, signature: str, contact: str) -> bytes:
    """The response to a request for what was infected the last time."""
    if request.method not in _SAFE_METHODS:
        return render_cut()
    address = str(request.urls[0]) if request.urls else request.target
    category = Label(f"ウイルス: {signature}", f"Virus: {signature}")
    return render_block_page(Block(address, category, _VIRUS_LIST, contact), request.method == "HEAD")
