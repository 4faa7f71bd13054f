"""What the demo does in the background: CPU work in processes, blocking work in threads, requests on the event loop."""

import ast
import hashlib
import os
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from windlass import App, Retry, current


@asynccontextmanager
async def lifespan(_: App) -> AsyncIterator[aiohttp.ClientSession]:
    """One HTTP client per runner, opened before its first job and closed after its last."""
    async with aiohttp.ClientSession(os.environ["DEMO_SERVER"]) as session:
        yield session


app = App(lifespan=lifespan)


@dataclass
class Module:
    """What was found in one source file."""

    path: str
    lines: int
    functions: int
    classes: int
    longest: int
    longest_name: str
    complexity: int


BRANCHES = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.BoolOp, ast.IfExp, ast.comprehension, ast.match_case)


@app.task(executor="process", timeout=60, retry=Retry(attempts=3, give_up_on=(SyntaxError, ValueError)))
def parse(path: str) -> Module:
    """Read a source file: its functions, its classes, its longest function, its branches."""
    text = Path(path).read_bytes()
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    longest = max(functions, key=length, default=None)
    return Module(
        path=path,
        lines=text.count(b"\n"),
        functions=len(functions),
        classes=sum(isinstance(node, ast.ClassDef) for node in ast.walk(tree)),
        longest=length(longest) if longest else 0,
        longest_name=longest.name if longest else "",
        complexity=1 + sum(isinstance(node, BRANCHES) for node in ast.walk(tree)),
    )


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


@dataclass
class Packed:
    """A file, compressed."""

    size: int
    packed: int
    sha256: str


@app.task(timeout=60)
def pack(path: str) -> Packed:
    """Compress a file and hash it, in a thread: both let go of the interpreter while they work."""
    data = Path(path).read_bytes()
    return Packed(size=len(data), packed=len(zlib.compress(data, 9)), sha256=hashlib.sha256(data).hexdigest())


class Unavailable(Exception):
    """The server answered with an error."""


@app.task(retry=Retry(attempts=8, backoff=0.5), timeout=10)
async def fetch(path: str) -> int:
    """Ask the demo's server, which fails now and then; the retries see to it that each answer comes."""
    session: aiohttp.ClientSession = current().state
    async with session.get(path) as response:
        if response.status != 200:
            raise Unavailable(f"{path} answered {response.status}")
        return len(await response.read())


@app.task(priority=50)
def urgent(word: str) -> str:
    """Jumps the queue."""
    return f"{word} went first"


@app.task
async def later(word: str) -> str:
    """Starts a few seconds after it was enqueued."""
    return f"{word} waited its time"


@app.task
async def unwanted() -> None:
    """Is cancelled before it starts."""
