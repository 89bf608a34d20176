"""A progress bar for notebooks. Programs and terminals see nothing of it."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from typing import Any, Final

from digitforge_client.common.numerals import grouped

#: A call that takes less time shows no bar.
_FIRST_S: Final = 1.0
#: Time between two updates of the bar.
_EVERY_S: Final = 0.25


class NotebookBar:
    """The progress of one call. In a Jupyter notebook, it appears below the cell if the call takes longer than 1 s."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._next_s = self._began + _FIRST_S
        self._shown: Any = None

    def update(self, done: int, total: int) -> None:
        """Show that *done* of *total* images have arrived."""
        now = time.monotonic()
        if now < self._next_s and not (self._shown is not None and done >= total):
            return
        self._next_s = now + _EVERY_S
        if not _in_notebook():
            return
        from IPython.display import HTML, display

        left = "" if done >= total else f", {(now - self._began) / done * (total - done):.0f} s left"
        bar = HTML(
            f'<progress value="{done}" max="{total}"></progress> {grouped(done)} of {grouped(total)} images{left}'
        )
        if self._shown is None:
            self._shown = display(bar, display_id=True)
        else:
            self._shown.update(bar)


def _in_notebook() -> bool:
    """Whether this is the main thread of the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    main = threading.current_thread() is threading.main_thread() and multiprocessing.parent_process() is None
    return main and getattr(shell, "kernel", None) is not None
