"""A callback for runs that are to be stopped from outside."""

import time

from lightning import Callback


class SlowSteps(Callback):
    """Sleeps after every step."""

    def on_train_batch_end(self, *arguments: object) -> None:
        time.sleep(0.3)
