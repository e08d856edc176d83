"""What a map's choice of cell earns on crops cut as in training, beside what the best cell would.

    python benchmarks/cell_choice.py prior:runs/demo/warmup/warmup.ckpt policy:runs/demo/rl/rl.ckpt \
      --store data/demo/synthetic_train --start 240

Tracking mixes what a head has learned with its windows and with where earlier boxes led. Here the crops lie around
each frame's truth, the clips are the same for all maps, and there is no window: "IoU" is that of the most probable
cell, where training raises that of sampled ones. Where a policy is not ahead even on the sequences it learned from,
neither window nor crops nor new sequences are to blame. "lost" counts the frames whose box overlaps the target by less
than 0.1, "IoU where found" is of the others. "best near" is the best box among the chosen cell and its eight
neighbours, "best" that of all cells. All are means over sequences of their means over frames; differences from the
first map are paired by sequence, with their standard errors.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tables import parser_of, print_table
from torch import Tensor
from torch.nn.functional import max_pool2d

from relo.data.clip_batch import ClipBatch
from relo.data.clip_dataset import StoreSource
from relo.data.datamodule import ClipLoader, TrackingDataModule
from relo.data.sampler import OrderSampler
from relo.errors import UserError
from relo.geometry import CropRule, cxcywh_to_xyxy, iou, xywh_to_xyxy
from relo.learning.rollout import unroll
from relo.models.heads import at_cells
from relo.tracking.tracker import Tracker

LOST_IOU = 0.1


@dataclass
class Choices:
    """A map, and the IoUs of what it chose, frame by frame."""

    path: str
    tracker: Tracker
    columns: dict[str, list[Tensor]] = field(default_factory=dict)

    @property
    def crops(self) -> tuple[CropRule, CropRule]:
        """How the model cuts its template and its search regions."""
        encoder, rule = self.tracker.network.encoder, self.tracker.rule
        return rule.template_crop(encoder.template_size), rule.search_crop(encoder.search_size)

    @torch.inference_mode()
    def look_at(self, clip: ClipBatch) -> None:
        """Note the IoU of the chosen box, of the best near it and of the best, on every frame of B clips."""
        localization = self.tracker.rule.localization
        for t, (_, maps) in enumerate(unroll(self.tracker.network, clip, (localization, "box"))):
            scores = maps.policy_logits if localization == "policy" else maps.prior_scores
            cells = scores.flatten(1).argmax(1)
            truth_xyxy = xywh_to_xyxy(clip.search_boxes_xywh[:, t]).clamp(0, 1)
            ious = iou(cxcywh_to_xyxy(maps.cells_cxcywh(localization)), truth_xyxy[:, None, None])  # [B, S, S]
            neighbours = max_pool2d(ious, 3, stride=1, padding=1)  # the best of each cell and its neighbours
            seen = {"chosen": at_cells(ious, cells), "near": at_cells(neighbours, cells), "best": ious.amax((1, 2))}
            for name, values in seen.items():
                self.columns.setdefault(name, []).append(values[clip.present[:, t]])

    def ious(self, name: str) -> Tensor:
        """Of all frames so far, "chosen", "near" or "best"."""
        return torch.cat(self.columns[name])


def sequence_means(values: Tensor, sequences: Tensor) -> Tensor:
    """Mean [N] over the frames of each of N sequences, of values [F] of frames in sequences [F] (0 .. N - 1)."""
    counts = sequences.bincount()
    return sequences.bincount(values, len(counts)) / counts


def clip_loader(crops: tuple[CropRule, CropRule], options: argparse.Namespace) -> ClipLoader:
    """The clips, cut, moved and scaled as in training."""
    module = TrackingDataModule(
        [StoreSource(options.store, start=options.start, stop=options.stop)],
        template_crop=crops[0],
        search_crop=crops[1],
        sampler=OrderSampler(templates=1, search_frames=options.frames),
        clips_per_epoch=options.clips,
        batch_size=min(options.batch, options.clips),
        workers=0,
        seed=options.seed,
    )
    module.setup("fit")
    return module.train_dataloader()


def compare(options: argparse.Namespace) -> Table:
    """Show the clips to every map.

    Raises:
        UserError: a map, model or store cannot be used.
    """
    maps = []
    for argument in options.maps:
        name, _, path = argument.partition(":")
        if name not in ("policy", "prior") or not path:
            raise UserError(f"'{argument}' is not policy:MODEL or prior:MODEL.")
        maps.append(Choices(path, Tracker.from_pretrained(path, localization=name, engine="torch")))
        if maps[-1].crops != maps[0].crops:
            raise UserError(f"{path} cuts its crops in another way than {maps[0].path}: compare models that see alike.")
    numbers: dict[str, int] = {}
    sequences = []
    for clip in track(clip_loader(maps[0].crops, options), "clips", console=Console(stderr=True)):
        for choices in maps:
            choices.look_at(clip)
        ids = torch.tensor([numbers.setdefault(name, len(numbers)) for name in clip.sequence_id])
        sequences += [ids[clip.present[:, t]] for t in range(options.frames)]
    frame_sequences = torch.cat(sequences)
    title = f"{len(frame_sequences):,} frames of {len(numbers)} sequences; IoU in percent"
    table = Table("map", "IoU", "minus the first", "lost (%)", "IoU where found", "best near", "best", title=title)
    first = maps[0].ious("chosen")
    for choices in maps:
        chosen = choices.ious("chosen")
        found = chosen >= LOST_IOU
        difference = sequence_means(chosen - first, frame_sequences)
        error = difference.std() / len(difference) ** 0.5
        table.add_row(
            f"{choices.tracker.rule.localization} of {choices.path}",
            f"{100 * sequence_means(chosen, frame_sequences).mean():.1f}",
            "" if choices is maps[0] else f"{100 * difference.mean():+.2f} ± {100 * error:.2f}",
            f"{100 * sequence_means((~found).double(), frame_sequences).mean():.1f}",
            f"{100 * sequence_means(chosen[found], frame_sequences[found].unique(return_inverse=True)[1]).mean():.1f}",
            *(f"{100 * sequence_means(choices.ious(name), frame_sequences).mean():.1f}" for name in ("near", "best")),
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "maps", nargs="+", metavar="MAP:MODEL", help="policy:MODEL or prior:MODEL; the first is the reference"
    )
    parser.add_argument("--store", required=True, help="a clip store (`relo data pack`)")
    parser.add_argument("--start", type=int, default=0, help="the store's first sequence to use")
    parser.add_argument("--stop", type=int, help="the first not to use any more")
    parser.add_argument("--clips", type=int, default=640)
    parser.add_argument("--frames", type=int, default=4, help="search frames of a clip")
    parser.add_argument("--batch", type=int, default=32, help="clips")
    parser.add_argument("--seed", type=int, default=5, help="of the clips")
    print_table(parser, arguments, compare)


if __name__ == "__main__":
    main()
