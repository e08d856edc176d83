"""A callback that saves a checkpoint at a given moment, as what listens to a cluster's signals does."""

from lightning import Callback, Trainer


class SavesAt(Callback):
    """Saves when a hook of Lightning's is called for the n-th time."""

    def __init__(self, hook: str, count: int, path: str) -> None:
        self._left, self._path = count, path
        setattr(self, hook, self._called)

    def _called(self, trainer: Trainer, *_: object) -> None:
        self._left -= 1
        if self._left == 0:
            trainer.save_checkpoint(self._path)
