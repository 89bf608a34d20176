"""The requests in flight: counted, so that a server that stops can wait for them and reject new ones."""

from __future__ import annotations

import threading
import time
from typing import Final

_POLL_S: Final = 0.5


class InFlight:
    """Counts the requests of all ports that have begun and not ended. Safe to use from several threads."""

    def __init__(self) -> None:
        self._count = 0
        self._stopping = False
        self._ended = threading.Condition()

    def begin(self) -> bool:
        """Count a request. Returns False, and does not count it, if the server is stopping."""
        with self._ended:
            if not self._stopping:
                self._count += 1
            return not self._stopping

    def end(self) -> None:
        """A counted request has ended: its answer is sent, or its client is gone."""
        with self._ended:
            self._count -= 1
            if self._stopping:
                self._ended.notify_all()

    def drain(self, grace_s: float) -> None:
        """Reject requests from now on, and wait up to *grace_s* seconds for those in flight."""
        ends = time.monotonic() + grace_s
        with self._ended:
            self._stopping = True
            # Short waits, because Python handles a second signal only between two of them.
            while self._count and time.monotonic() < ends:
                self._ended.wait(min(_POLL_S, max(0.0, ends - time.monotonic())))
