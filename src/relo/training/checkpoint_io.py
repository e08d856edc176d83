"""How a run of Lightning reads a checkpoint of ours: without running anything of the file's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from relo.models.checkpoints.inert_pickle import foreign_parts
from relo.models.checkpoints.states import require_restored
from relo.models.checkpoints.weights import read_checkpoint


class InertCheckpointIO(TorchCheckpointIO):
    """Saves like Lightning, and loads what can be restored without the file's code.

    A validation needs the tensors alone. A fit that is resumed needs all but the states of callbacks that it does not
    have.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def load_checkpoint(
        self, path: str | Path, map_location: Callable | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The checkpoint, on the CPU.

        Raises:
            UserError: it cannot be read, or the run needs an object of it that was not restored; that is named.
        """
        checkpoint = read_checkpoint(Path(path))
        if self._trainer.state.fn != "fit":
            return {name: entry for name, entry in checkpoint.items() if not any(foreign_parts(entry))}
        states = checkpoint.get("callbacks")
        if isinstance(states, dict):
            present = {callback.state_key for callback in self._trainer.callbacks}  # type: ignore[attr-defined]
            checkpoint["callbacks"] = {
                name: state if name in present or not any(foreign_parts(state)) else {}
                for name, state in states.items()
            }
        require_restored(checkpoint, str(path))
        return checkpoint
