"""A WebSocket of a session through `websockets`."""

import asyncio
import os
import ssl
import sys

import websockets

base, authority, cookie = sys.argv[1:]


async def main():
    context = ssl.create_default_context(cafile=authority)
    url = base.replace("https://", "wss://") + "/ws"
    fields = {"Cookie": cookie}
    async with websockets.connect(url, ssl=context, extra_headers=fields, max_size=None) as socket:
        for number in range(50):
            await socket.send(f"message {number}")
            got = await socket.recv()
            assert got == f"message {number}", got
        large = os.urandom(3_000_000)
        await socket.send(large)
        assert await socket.recv() == large
        # In pieces, and compressed if the server says so.
        await socket.send(iter(["in ", "three ", "pieces"]))
        assert await socket.recv() == "in three pieces"
        await asyncio.wait_for(await socket.ping(), 10)
    assert socket.close_code == 1000, socket.close_code

    # Many at once, each with its own echo.
    async def one(number):
        async with websockets.connect(url, ssl=context, extra_headers=fields) as socket:
            await socket.send(str(number))
            assert await socket.recv() == str(number)

    await asyncio.gather(*map(one, range(20)))


asyncio.run(main())
