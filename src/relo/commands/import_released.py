"""`relo import`: a checkpoint of the public release as a model folder."""

from relo.console import make_console
from relo.models.checkpoints import weights
from relo.models.checkpoints.released import Variant


def import_released(checkpoint: str, *, variant: Variant, output: str) -> None:
    """Turn a checkpoint of the public release into a model folder.

    Args:
        checkpoint: the released file, such as RELO_ep0090.pth.tar.
        variant: which network it holds.
        output: the folder to write: model.safetensors, config.yaml and tracking.yaml.
    """
    network = weights.import_released(checkpoint, variant=variant, output=output)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    make_console().print(
        f"RELO-{variant.upper()} ({millions:.1f} M parameters) is in {output}; track with `--model {output}`.",
        soft_wrap=True,
    )
