"""QUIC with aioquic at both ends: servers that say again what they hear, and a client, each in its namespace."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator

from aioquic.asyncio.client import connect
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration

from firmware.netns import call_in_namespace
from tests.support.wait import patience_s
from tests.support.web import TLS_PORT, Way, Web

V1, V2 = 1, 0x6B3343CF
PROTOCOLS = ["echo"]
SILENCE_S = 1.5
"""How long a client waits for a first answer; a browser asks over TCP after a third of a second."""


@contextlib.contextmanager
def start_echo(web: Web, side: str, port: int, *, retry: bool = False) -> Iterator[None]:
    """A server that says on each stream what it heard there."""
    configuration = QuicConfiguration(is_client=False, alpn_protocols=PROTOCOLS)
    configuration.load_cert_chain(web.folder / side / "cert.pem", web.folder / side / "key.pem")
    listening, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def echo() -> None:
            writer.write(await reader.read())
            writer.write_eof()

        tasks.append(asyncio.get_running_loop().create_task(echo()))

    tasks: list[asyncio.Task[None]] = []

    async def listen() -> None:
        loops.append(asyncio.get_running_loop())
        server = await serve("::", port, configuration=configuration, retry=retry, stream_handler=answer)
        listening.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=lambda: call_in_namespace(web.namespace(side), lambda: asyncio.run(listen())), daemon=True)
    thread.start()
    assert listening.wait(patience_s(10))
    try:
        yield
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()


def ask(web: Web, name: str, words: bytes, way: Way = Way.OUT4, port: int = TLS_PORT, versions: tuple[int, ...] = (V1,)) -> bytes:
    """What a client hears that says these words; ConnectionError if nobody answers."""
    configuration = QuicConfiguration(
        alpn_protocols=PROTOCOLS,
        server_name=name,
        verify_mode=ssl.CERT_NONE,
        original_version=versions[0],
        supported_versions=list(versions),
        idle_timeout=patience_s(SILENCE_S),
    )

    async def talk() -> bytes:
        async with connect(way.address, port, configuration=configuration) as client:
            reader, writer = await client.create_stream()
            writer.write(words)
            writer.write_eof()
            return await reader.read()

    return call_in_namespace(web.namespace(way.asks), lambda: asyncio.run(talk()))
