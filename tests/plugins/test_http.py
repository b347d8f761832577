"""The HTTP session of plug-ins leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc

from snapkeep.plugin.http import open_session
from snapkeep.plugin.settings import HttpsSettings


async def test_whoever_gives_up_in_a_tls_handshake_leaves_no_connection() -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        begun.set()  # the client has said hello, and waits
        while await reader.read(4096):
            pass
        over.set()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = HttpsSettings(host="127.0.0.1", port=port)
        async with open_session(settings) as session:
            task = asyncio.ensure_future(session.request("GET", "/"))
            await begun.wait()
            task.cancel()
            await asyncio.wait({task})
            async with asyncio.timeout(5):
                await over.wait()
    gc.collect()  # what nobody closed warns, which fails the test
    assert task.cancelled()
