"""Where a private key lives, as a URI: `file:PATH`, or `pkcs11:…` (RFC 7512) for a key that never leaves its HSM."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

from mamori.formats.problems import BadInputError, Problem

_EXAMPLE = "pkcs11:token=NAME;object=KEY?module-path=/usr/lib/…/module.so&pin-source=file:pin"
_PATH_ATTRIBUTES = ("token", "object", "id")
_QUERY_ATTRIBUTES = ("module-path", "pin-source")

# RFC 7512 section 2.3: what may stand unescaped in a value of the path, and in one of the query, besides `%XX`.
_PATH_VALUE = r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=&]|%[0-9A-Fa-f]{2})+"
_QUERY_VALUE = r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=/?|]|%[0-9A-Fa-f]{2})+"
# … and what libp11's stricter parser, which reads our rendering, takes as it is.
_PLAIN = "-._~"
_PLAIN_IN_QUERY = _PLAIN + ":/"


@dataclass(frozen=True)
class FileKey:
    """A private key in a PEM file of this machine."""

    path: Path

    def __str__(self) -> str:
        return f"file:{self.path}"


@dataclass(frozen=True)
class TokenKey:
    """A private key behind a PKCS #11 module.

    `module_path` is a path inside the tools tree. `pin_source` is a file with the PIN and nothing else, not even a newline:
    libp11 would send that to the token as part of the PIN, and three of those lock it.
    """

    token: str
    module_path: Path
    object: str = ""
    id: bytes = b""
    pin_source: Path | None = None

    def __str__(self) -> str:
        """The URI for tools: it selects the private key and says where the PIN is, but names no module.

        libp11 0.4.13, which rauc, osslsigncode and openssl load, refuses a URI with `module-path` ("invalid id"); the module
        reaches it through the environment.
        """
        parts = [f"token={quote(self.token, safe=_PLAIN)}"]
        if self.object:
            parts.append(f"object={quote(self.object, safe=_PLAIN)}")
        if self.id:
            parts.append(f"id={quote_from_bytes(self.id, safe=_PLAIN)}")
        query = f"?pin-source=file:{quote(str(self.pin_source), safe=_PLAIN_IN_QUERY)}" if self.pin_source else ""
        return f"pkcs11:{';'.join(parts)};type=private{query}"


KeyUri = FileKey | TokenKey
_Complain = Callable[..., None]
_PIN_HINT = "write the PIN to a file of mode 0600 and name it with `pin-source=file:PATH`"


def parse_key_uri(text: str, folder: Path, source: str, key: str) -> KeyUri:
    """The key that `text` names; relative paths start at `folder`. BadInputError names every problem at `source: key`."""
    scheme, _, rest = text.partition(":")
    if scheme == "file":
        if rest.startswith("//") or not rest or not rest.isprintable():
            raise BadInputError([Problem(source, key, "file:PATH", repr(text), "a path follows `file:` directly, with no host")])
        return FileKey(folder / rest)
    if scheme == "pkcs11":
        return _parse_token_key(text, folder, source, key)
    raise BadInputError([Problem(source, key, "a `file:` or `pkcs11:` URI", repr(text))])


def _parse_token_key(text: str, folder: Path, source: str, key: str) -> TokenKey:
    """RFC 7512: `;` parts the path, `&` the query; a PIN in the URI itself would end up in logs and process lists."""
    path, _, query = text.removeprefix("pkcs11:").partition("?")
    problems: list[Problem] = []

    def complain(expected: str, got: str, hint: str = "") -> None:
        problems.append(Problem(source, key, expected, got, hint))

    values: dict[str, bytes] = {}
    for name, value in _attributes(path, ";", _PATH_ATTRIBUTES, _PATH_VALUE, complain):
        values[name] = value
    for name, value in _attributes(query, "&", _QUERY_ATTRIBUTES, _QUERY_VALUE, complain):
        values[name] = value
    texts = _decoded(values, complain)
    if not problems:
        for name in ("token", "module-path"):
            if name not in values:
                complain(f"`{name}`", "a URI without it", _EXAMPLE)
        if not {"object", "id"} & values.keys():
            complain("`object` or `id`", "a URI with neither", _EXAMPLE)
    module, pin = texts.get("module-path", ""), texts.get("pin-source", "").removeprefix("file:")
    if module and not module.startswith("/"):
        complain("`module-path` with an absolute path in the tools tree", repr(module))
    if "pin-source" in texts and (not pin or pin.startswith(("//", "|"))):
        complain("`pin-source` with a file's path", repr(texts["pin-source"]))
    if problems:
        raise BadInputError(problems)
    return TokenKey(texts["token"], Path(module), texts.get("object", ""), values.get("id", b""), folder / pin if pin else None)


def _attributes(
    part: str, separator: str, known: tuple[str, ...], grammar: str, complain: _Complain
) -> Iterator[tuple[str, bytes]]:
    """The known attributes of one part of the URI, percent-decoded; anything else is complained about."""
    seen: set[str] = set()
    for attribute in part.split(separator) if part else ():
        name, _, value = attribute.partition("=")
        if name == "pin-value":
            complain("no PIN in the URI", "`pin-value`", _PIN_HINT)
        elif name not in known:
            complain(f"only {', '.join(_PATH_ATTRIBUTES)} before `?`, {', '.join(_QUERY_ATTRIBUTES)} after it", f"`{name}`")
        elif name in seen:
            complain(f"`{name}` once", "it twice")
        elif re.fullmatch(grammar, value) is None:
            complain(f"`{name}` with a value as in RFC 7512", repr(value), "other characters are written as %XX")
        else:
            seen.add(name)
            yield name, unquote_to_bytes(value)


def _decoded(values: Mapping[str, bytes], complain: _Complain) -> dict[str, str]:
    """Every value but the binary `id` as text."""
    texts = {}
    for name, value in values.items():
        if name == "id":
            continue
        try:
            texts[name] = value.decode()
        except UnicodeDecodeError:
            complain(f"`{name}` in UTF-8", repr(value))
            continue
        if not texts[name].isprintable():
            complain(f"`{name}` in printable characters", repr(value))
    return texts
