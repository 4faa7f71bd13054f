"""The demo's HTTP server: slow by nature, and every seventh answer is an error."""

import asyncio
import itertools
import sys

from aiohttp import web

numbers = itertools.count(1)


async def answer(request: web.Request) -> web.Response:
    """Take a little while; fail every seventh time."""
    await asyncio.sleep(0.05)
    if next(numbers) % 7 == 0:
        return web.Response(status=503, text="busy")
    return web.Response(text=f"item {request.match_info['n']}\n" * 20)


async def serve() -> None:
    """Listen on a free port of this machine, print it, and serve until the parent is gone."""
    app = web.Application()
    app.router.add_get("/item/{n}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
