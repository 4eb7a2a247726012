"""Coroutines side by side, their results one by one to code that isn't asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def as_finished(
    loop: asyncio.AbstractEventLoop, jobs: Iterable[Callable[[], Coroutine[None, None, T]]], limit: int
) -> Iterator[T]:
    """Runs at most `limit` jobs at a time and yields their results as they finish, in any order.

    After a failure no job is started; those that run are waited for and yielded, since they were paid for, then the
    failure is raised. Closing the generator cancels them.
    """
    finished: asyncio.Queue[asyncio.Task] = asyncio.Queue()
    waiting, running = iter(jobs), set()
    failure: BaseException | None = None

    async def top_up() -> None:
        while len(running) < limit and (job := next(waiting, None)) is not None:
            task = asyncio.ensure_future(job())
            running.add(task)
            task.add_done_callback(finished.put_nowait)

    try:
        loop.run_until_complete(top_up())
        while running:
            done = [loop.run_until_complete(finished.get())]
            while not finished.empty():
                done.append(finished.get_nowait())
            running.difference_update(done)
            failure = failure or next((task.exception() for task in done if task.exception()), None)
            if failure is None:
                loop.run_until_complete(top_up())
            yield from [task.result() for task in done if not task.exception()]
        if failure is not None:
            raise failure
    finally:
        for task in running:
            task.cancel()
        if running:
            loop.run_until_complete(asyncio.gather(*running, return_exceptions=True))
