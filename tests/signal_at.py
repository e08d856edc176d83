"""A callback that stops a run at a given moment, as a terminal or a cluster does."""

import signal

from lightning import Callback


class SignalAt(Callback):
    """Raises a signal when a hook of Lightning's is called for the n-th time."""

    def __init__(self, name: str, hook: str, count: int) -> None:
        self._number = signal.Signals[name]
        self._left = count
        setattr(self, hook, self._called)

    def _called(self, *_: object) -> None:
        self._left -= 1
        if self._left == 0:
            signal.raise_signal(self._number)
