"""Places at the door: how much of the gateway one hospital may hold at the same time.

A request takes one of its site's few places, or is sent away to try again. Those that carry much (objects, in pieces of
5 MB) also wait, unread, for one of two large places of their site and for one of those of the gateway: the kernel holds
back what the hospital sends meanwhile, so memory is bounded by places, not by how much somebody sends.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class NoPlaceError(Exception):
    """No place became free in time."""


class Places:
    """``each``: places of one site. ``large_each``, ``large``: large ones of one site, and in all."""

    def __init__(self, *, each: int, large_each: int, large: int, patience_s: float) -> None:
        self._each, self._large_each, self._patience_s = each, large_each, patience_s
        self._inside: Counter[str] = Counter()
        self._of_site: dict[str, asyncio.Semaphore] = {}
        self._of_all = asyncio.Semaphore(large)

    @asynccontextmanager
    async def place(self, site: str, *, is_large: bool) -> AsyncIterator[None]:
        """Hold a place of ``site``. Raises: NoPlaceError at once when all are taken, or after the patience."""
        if self._inside[site] >= self._each:
            raise NoPlaceError
        self._inside[site] += 1
        try:
            if is_large:
                async with self._large_place(site):
                    yield
            else:
                yield
        finally:
            self._inside[site] -= 1
            if not self._inside[site]:
                self._inside.pop(site)
                self._of_site.pop(site, None)

    @asynccontextmanager
    async def _large_place(self, site: str) -> AsyncIterator[None]:
        own = self._of_site.setdefault(site, asyncio.Semaphore(self._large_each))
        # the site's own first: who waits for those holds none of the places that are everybody's
        async with _within(own, self._patience_s), _within(self._of_all, self._patience_s):
            yield


@asynccontextmanager
async def _within(places: asyncio.Semaphore, patience_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(patience_s):
            await places.acquire()
    except TimeoutError:
        raise NoPlaceError from None
    try:
        yield
    finally:
        places.release()
