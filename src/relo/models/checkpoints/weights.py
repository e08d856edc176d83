"""Models on disk, by path or by name.

A model folder holds `model.safetensors`, `config.yaml` (how to build the network) and, where it has a tracking rule of
its own, `tracking.yaml`. A checkpoint of `relo fit` holds the same beside the state of the training.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from huggingface_hub import hf_hub_download
from safetensors import safe_open
from safetensors.torch import save_file

from relo import __version__
from relo.errors import EXCERPT, UserError, excerpt
from relo.files import REFUSALS, atomic_write, read_yaml, reason, write_text
from relo.models.checkpoints.cache import cache_folder
from relo.models.checkpoints.plugin import build
from relo.models.checkpoints.released import VARIANTS, Variant, read_released
from relo.models.checkpoints.states import (
    State,
    as_state,
    load_state_strictly,
    read_safetensors,
    read_torch_file,
    require_fit,
    require_settings,
)
from relo.models.graph_metadata import graphs_in
from relo.models.network import LocalizationNetwork

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.yaml"
RULE_FILE = "tracking.yaml"

FORMAT = 1
"""The version of what is written: the meaning of tensors, config and rule. Files that name none have version 1."""

FORMAT_ENTRY = "relo_format"

SHIPPED = "relo-small"
"""The name of the network that comes with the package."""

SHIPPED_FOLDER = Path(__file__).parents[1] / "shipped"

HUB_REPOSITORY = "xche32/RELO"


def save_network(network: LocalizationNetwork, folder: str | Path, tracking: Mapping[str, Any] | None = None) -> None:
    """Write a model folder.

    Args:
        network: the network.
        folder: the folder; it is made where there is none.
        tracking: settings of the tracking rule; if not given, the folder has no `tracking.yaml`, nor that of an
            earlier model.

    Raises:
        UserError: the folder holds exported graphs, or cannot be written.
    """
    folder = Path(folder)
    if graphs := graphs_in(folder):
        raise UserError(f"{folder} holds exported graphs ({', '.join(graphs)}); give the model a folder of its own.")
    config = yaml.safe_dump(network.config(), sort_keys=False)
    # Shared memory and strides do not survive in a safetensors file.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    with atomic_write(folder / WEIGHTS_FILE) as partial:
        save_file(tensors, partial, metadata={FORMAT_ENTRY: str(FORMAT)})
    write_text(folder / CONFIG_FILE, config)
    if tracking is None:
        (folder / RULE_FILE).unlink(missing_ok=True)
    else:
        write_text(folder / RULE_FILE, yaml.safe_dump(dict(tracking), sort_keys=False))


def load_network(model: str | Path) -> LocalizationNetwork:
    """The network of a folder, of a checkpoint of ours, or of a released name, in evaluation mode on the CPU.

    Args:
        model: a folder of `save_network` or `relo import`, a `.ckpt` of `relo fit`, or a name such as "relo-b256".

    Raises:
        UserError: there is no such model, or its files are broken, do not fit each other or are of another version; or
            it names a class that is not relo's and that is not trusted (see `plugin.trust`).
    """
    path = resolve(model)
    config, state = _read_model(path)
    if (tensors := _tensors_without_memory(config, path)) is not None:
        require_fit(tensors, state, str(path))
    network = _build_network(config, path)
    load_state_strictly(network, state, str(path))
    return network.eval()


def load_stage(network: LocalizationNetwork, model: str | Path, fresh_parts: Collection[str] = ()) -> None:
    """Start a training stage from an earlier one's weights: all of them, strictly.

    Args:
        network: the network to load into.
        model: what `load_network` takes.
        fresh_parts: parts that keep the weights they have, such as "policy".

    Raises:
        UserError: the model cannot be read or does not fit; the tensors are named, and the network is left as it was.
    """
    path = resolve(model)
    _, state = _read_model(path)

    def is_fresh(name: str) -> bool:
        return name.partition(".")[0] in fresh_parts

    kept = {name: tensor for name, tensor in network.state_dict().items() if is_fresh(name)}
    load_state_strictly(network, {**{k: v for k, v in state.items() if not is_fresh(k)}, **kept}, str(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A Lightning checkpoint of `relo fit`, with the network's config under `relo_network`.

    Raises:
        UserError: the file is missing, truncated, of another kind or version, or another program's checkpoint; or its
            tensors, its network's config or its rule depend on objects that were not restored.
    """
    checkpoint = read_torch_file(path)
    if not isinstance(checkpoint, dict) or not {"relo_network", "state_dict"} <= checkpoint.keys():
        raise UserError(
            f"{path} is not a checkpoint of `relo fit`; one of the public release is turned into a model folder with "
            "`relo import`."
        )
    _require_format(checkpoint.get(FORMAT_ENTRY, FORMAT), path)
    for entry in ("relo_network", "relo_rule"):
        require_settings(checkpoint.get(entry), f"Entry {entry!r} of {path}")
    return checkpoint | {"state_dict": as_state(checkpoint["state_dict"], f"Entry 'state_dict' of {path}")}


def resolve(model: str | Path) -> Path:
    """The folder or file of a model: a path as it is, a released name by way of the hub.

    A released checkpoint is fetched and converted once, into the cache folder (see `relo.models.checkpoints.cache`).

    Args:
        model: a path, or one of "relo-small", "relo-t256", "relo-b256", "relo-l256". The text "relo-small" is always
            the network that comes with the package; a folder of that name is "./relo-small".

    Raises:
        UserError: there is no such path or name, the folder holds both a model and exported graphs, the hub cannot be
            reached, or there is no cache, or none that can be written.
    """
    if model == SHIPPED:
        return SHIPPED_FOLDER
    path = Path(model)
    if os.path.exists(path):  # False for a name that no file can have
        if os.path.lexists(path / WEIGHTS_FILE) and (graphs := graphs_in(path)):
            raise UserError(
                f"{path} holds a model ({WEIGHTS_FILE}) and exported graphs ({', '.join(graphs)}), which may be of "
                "another network: give each a folder of its own."
            )
        return path
    variants = {f"relo-{variant}": variant for variant in VARIANTS}
    if str(model) not in variants:
        names = ", ".join([SHIPPED, *variants])
        raise UserError(
            f"There is no model {str(model)[:EXCERPT]}: give a folder, a .ckpt, an .onnx, or one of {names}."
        )
    folder = cache_folder() / str(model)
    if not (folder / WEIGHTS_FILE).is_file():
        variant = variants[str(model)]
        file = f"checkpoints/train/relo/relo_{variant}/RELO_ep0090.pth.tar"
        try:
            fetched = hf_hub_download(HUB_REPOSITORY, file)
        except Exception as error:  # of sockets, of HTTP libraries, of the hub
            why = excerpt(" ".join((reason(error) or f"{type(error).__name__}: {error}").split()))
            if isinstance(error, OSError) and error.errno in REFUSALS:
                raise UserError(
                    f"The hub's cache cannot be written ({why}), where {file} of {HUB_REPOSITORY} belongs: make room, "
                    "or set HF_HOME to another folder."
                ) from error
            raise UserError(
                f"{file} of {HUB_REPOSITORY} is not in the local cache and the hub cannot be reached ({why}): go "
                "online, or fetch the file elsewhere and use `relo import`."
            ) from error
        import_released(fetched, variant=variant, output=folder)
    return folder


def import_released(path: str | Path, *, variant: Variant, output: str | Path) -> LocalizationNetwork:
    """Turn a checkpoint of the public release into a model folder: weights, config and tracking rule.

    The rule has what the release changes on benchmarks, too. Both stages are taken. A warm-up checkpoint has no policy
    and no critic: theirs are fresh, seeded weights, and the tracking rule localizes by the prior.

    Args:
        path: the checkpoint (`RELO_ep0090.pth.tar`, `RELO_WARMUP_ep0090.pth.tar`).
        variant: t256, b256 or l256.
        output: the folder to write.

    Returns:
        The network, in evaluation mode.

    Raises:
        UserError: the file is broken or another program's, its tensors are not the variant's (they are named), or the
            folder cannot be written.
    """
    network, rule = read_released(Path(path), variant)
    save_network(network, output, rule)
    return network.eval()


def _read_model(path: Path) -> tuple[dict[str, Any], State]:
    """How to build the network of a folder or checkpoint, and its tensors."""
    if path.is_dir():
        return _read_folder(path)
    checkpoint = read_checkpoint(path)
    prefix = "network."
    return checkpoint["relo_network"], {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }


def _build_network(config: dict[str, Any], path: Path) -> LocalizationNetwork:
    network = build(config)
    if not isinstance(network, LocalizationNetwork):
        raise UserError(f"{path} describes a {type(network).__name__}, not a network to track with.")
    return network


def _tensors_without_memory(config: dict[str, Any], path: Path) -> State | None:
    """The names, shapes and types of a network's tensors, whose numbers are nowhere: it may be larger than the memory.

    Returns:
        None where a part cannot be built without memory.

    Raises:
        UserError: the config cannot be used, or is not a network's.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return _build_network(config, path).state_dict()
    except UserError as error:
        if error.__context__ is None:  # else an operation that needs memory may lie behind it
            raise
    except Exception:  # a part's constructor may read its own tensors
        pass
    return None


def _read_folder(folder: Path) -> tuple[dict[str, Any], State]:
    config_file, weights_file = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    if not config_file.exists():
        raise UserError(f"{folder} is no model folder: it has no {CONFIG_FILE}.")
    config = read_yaml(config_file, "The network's config")
    if not isinstance(config, dict):
        raise UserError(f"{config_file} does not name the network's class_path and init_args.")
    state = as_state(read_safetensors(weights_file), str(weights_file))
    with safe_open(weights_file, framework="pt") as file:
        _require_format((file.metadata() or {}).get(FORMAT_ENTRY, FORMAT), weights_file)
    return config, state


def _require_format(found: Any, path: Path) -> None:
    is_plain = isinstance(found, (str, int, float, NoneType))
    if not is_plain or found not in (FORMAT, str(FORMAT)):
        shown = excerpt(found).strip("'") if is_plain else f"a {type(found).__name__}"
        raise UserError(
            f"{path} has weights of format {shown}, and relo {__version__} reads format "
            f"{FORMAT}: take weights made for this version of relo, or the version that wrote them."
        )
