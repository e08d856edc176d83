"""Our tracker beside OpenCV's on videos with truth: success AUC, and milliseconds per frame on one core.

    python benchmarks/opencv_trackers.py SEQUENCES [--model relo-small] [--nano BACKBONE.onnx HEAD.onnx]
        [--trackers relo CSRT KCF MIL NanoTrack] [--output FOLDER]

SEQUENCES is a folder in the plain layout (see `relo.data.sequences.datasets`). Each sequence is tracked in one pass
from its first box; frames without truth do not count. Beside the mean over sequences stands its standard error, beside
the difference from our tracker that of the paired differences.

The trackers take turns, frame by frame, each with one thread, so that other programs slow all of them alike. "ms" is
the median time of a step by the clock, "ms of core" by the time that the process had on its cores, in which waiting for
a core does not show; decoding counts for none. "ms, first frame" is the median time to take up a target.

CSRT and KCF are in the contributed modules: install opencv-contrib-python-headless 4 into a folder of its own, and put
that first on PYTHONPATH. NanoTrack v2 reads two files that its author publishes (`NanoTrack/models/nanotrackv2` in
github.com/HonglinChu/SiamTrackers, `nanotrack_backbone_sim.onnx` and `nanotrack_head_sim.onnx`). A tracker that OpenCV
lacks, or whose files are not given, is named and left out.

--output writes `scores.json`, `table.md`, and for each sequence `<name>.png`: frames from its start to its end with the
truth in green and our tracker's box in red.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tables import parser_of

from relo.data.sequences import Sequence as AnnotatedSequence
from relo.data.sequences import open_reader
from relo.evaluation.report_page import ReportTable
from relo.evaluation.result_folder import SequenceResult
from relo.evaluation.sequence_scores import sequence_auc
from relo.geometry import iou_xywh
from relo.models.checkpoints.weights import SHIPPED
from relo.tracking.crops import RGBImage
from relo.tracking.render import DrawnTarget, draw_targets
from relo.tracking.tracker import Tracker
from relo.tracking.video_writer import fit_into

OURS, NANO = "relo", "NanoTrack"
OPENCVS = {"CSRT": "TrackerCSRT", "KCF": "TrackerKCF", "MIL": "TrackerMIL", NANO: "TrackerNano"}
COLUMNS = ("AUC", "relo minus it", "ms", "ms of core", "ms, first frame")

TILE = (320, 240)  # width, height of a frame in a sheet
TILES = 24
TILES_A_ROW = 6

Step = Callable[[RGBImage], list[float]]
"""The next frame -> the target's box x, y, w, h; the last one where the tracker says that it has lost it."""

Start = Callable[[RGBImage, list[float]], Step]


class UnavailableError(Exception):
    """A tracker that cannot be had here, and why."""


@dataclass
class Timed:
    """What a tracker gave on one sequence, and the seconds of each frame: by the clock, and of the cores."""

    boxes_xywh: list[list[float]] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function's result."""
        clock, cores = time.perf_counter(), time.process_time()
        result = function(*arguments)
        self.cores.append(time.process_time() - cores)
        self.clock.append(time.perf_counter() - clock)
        return result


def our_start(model: str) -> Start:
    """Our tracker, on the CPU."""
    tracker = Tracker.from_pretrained(model, device="cpu")

    def start(image: RGBImage, box_xywh: list[float]) -> Step:
        states = tracker.initialize([image], [box_xywh])

        def step(image: RGBImage) -> list[float]:
            nonlocal states
            states = tracker.step([image], states)
            return states[0].box_xywh.tolist()

        return step

    return start


def opencv_start(name: str, nano: Sequence[str] | None) -> Start:
    """A tracker of OpenCV's.

    Raises:
        UnavailableError: this build of OpenCV lacks it, or its files were not given.
    """
    create = getattr(cv2, f"{OPENCVS[name]}_create", None)
    if create is None:
        raise UnavailableError(f"OpenCV {cv2.__version__} has no {OPENCVS[name]}; see the top of this file")
    parameters = []
    if name == NANO:
        if nano is None:
            raise UnavailableError("its two files are given with --nano; see the top of this file")
        parameters = [cv2.TrackerNano_Params()]
        parameters[0].backbone, parameters[0].neckhead = nano

    def start(image: RGBImage, box_xywh: list[float]) -> Step:
        tracker = create(*parameters)
        tracker.init(to_bgr(image), tuple(round(value) for value in box_xywh))

        def step(image: RGBImage) -> list[float]:
            nonlocal box_xywh
            found, box = tracker.update(to_bgr(image))
            if found:
                box_xywh = [float(value) for value in box]
            return box_xywh

        return step

    return start


def to_bgr(image: RGBImage) -> RGBImage:
    """The channels turned round, in memory of their own, as OpenCV wants them."""
    return np.ascontiguousarray(image[..., ::-1])


def track(starts: Mapping[str, Start], sequence: AnnotatedSequence) -> dict[str, Timed]:
    """Track a sequence with every tracker, frame by frame in turn; the first entry is of the first frame."""
    found = {name: Timed() for name in starts}
    steps: dict[str, Step] = {}
    for index in range(len(sequence)):
        image = sequence.frames[index]
        for name, timed in found.items():
            if index == 0:
                box_xywh = sequence.boxes_xywh[0].tolist()
                steps[name] = timed.run(starts[name], image, box_xywh)
            else:
                box_xywh = timed.run(steps[name], image)
            timed.boxes_xywh.append(box_xywh)
    return found


def auc(sequence: AnnotatedSequence, timed: Timed) -> float:
    """The success AUC in percent."""
    boxes_xywh, seconds = np.array(timed.boxes_xywh), np.array(timed.clock)
    return 100 * sequence_auc(SequenceResult(sequence, boxes_xywh, np.ones(len(seconds)), seconds, None))


def sheet(sequence: AnnotatedSequence, timed: Timed) -> RGBImage:
    """Frames from the start to the end of a sequence with truth and box, as one picture."""
    tiles = []
    for index in np.unique(np.linspace(0, len(sequence) - 1, TILES).round().astype(int)).tolist():
        box_xywh, truth_xywh = timed.boxes_xywh[index], sequence.boxes_xywh[index].tolist()
        caption = f"#{index}"
        if sequence.visible[index]:
            overlap = iou_xywh(torch.tensor(box_xywh).double(), torch.tensor(truth_xywh).double())
            caption += f"  IoU {float(overlap):.2f}"
        target = DrawnTarget(box_xywh, truth_xywh=truth_xywh)
        tiles.append(fit_into(draw_targets(sequence.frames[index], [target], caption), *TILE))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % TILES_A_ROW)
    return np.vstack([np.hstack(tiles[i : i + TILES_A_ROW]) for i in range(0, len(tiles), TILES_A_ROW)])


def mean_and_error(values: Sequence[float], sign: str = "") -> str:
    """Mean ± standard error."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{statistics.fmean(values):{sign}.1f} ± {error:.1f}"


def milliseconds(seconds: Iterable[float]) -> str:
    """The median."""
    values = list(seconds)
    return f"{1e3 * statistics.median(values):.1f}" if values else "-"


def tabulate(aucs: Mapping[str, Mapping[str, float]], times: Mapping[str, Sequence[Timed]]) -> list[list[str]]:
    """A row for each tracker: its name, the columns, and the AUC of every sequence."""
    rows = []
    for name, of_sequences in aucs.items():
        differences = [aucs[OURS][sequence] - value for sequence, value in of_sequences.items()] if OURS in aucs else []
        rows.append(
            [
                name,
                mean_and_error(list(of_sequences.values())),
                mean_and_error(differences, "+") if differences and name != OURS else "",
                milliseconds(second for timed in times[name] for second in timed.clock[1:]),
                milliseconds(second for timed in times[name] for second in timed.cores[1:]),
                milliseconds(timed.clock[0] for timed in times[name]),
                *(f"{value:.1f}" for value in of_sequences.values()),
            ]
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and write the output."""
    parser = parser_of(__doc__)
    parser.add_argument("sequences", type=Path)
    parser.add_argument("--model", default=SHIPPED, help="a model's name, its folder, or a checkpoint")
    parser.add_argument("--nano", nargs=2, metavar=("BACKBONE", "HEAD"), help="the files of NanoTrack")
    parser.add_argument("--trackers", nargs="+", choices=[OURS, *OPENCVS], default=[OURS, *OPENCVS])
    parser.add_argument("--output", type=Path, help="a folder for scores, table and pictures")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    console = Console()
    starts: dict[str, Start] = {}
    for name in options.trackers:
        try:
            starts[name] = our_start(options.model) if name == OURS else opencv_start(name, options.nano)
        except UnavailableError as error:
            console.print(f"{name} is left out: {error}.", markup=False)
    reader = open_reader("plain", options.sequences, "all")
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
    aucs: dict[str, dict[str, float]] = {name: {} for name in starts}
    times: dict[str, list[Timed]] = {name: [] for name in starts}
    for sequence in reader:
        for name, timed in track(starts, sequence).items():
            aucs[name][sequence.name] = auc(sequence, timed)
            times[name].append(timed)
            if name == OURS and options.output is not None:
                cv2.imwrite(str(options.output / f"{sequence.name}.png"), to_bgr(sheet(sequence, timed)))
        listed = ", ".join(f"{name} {of_sequences[sequence.name]:.1f}" for name, of_sequences in aucs.items())
        console.print(f"{sequence.name} ({len(sequence)} frames): {listed}", markup=False, highlight=False)
    header, rows = ["tracker", *COLUMNS, *reader.names], tabulate(aucs, times)
    title = f"{len(reader)} sequences of {options.sequences}, OpenCV {cv2.__version__}, {options.model}"
    table = Table(*header[: len(COLUMNS) + 1], title=title)
    for row in rows:
        table.add_row(*row[: len(COLUMNS) + 1])
    console.print(table)
    if options.output is not None:
        (options.output / "table.md").write_text(ReportTable(header, rows).markdown())
        scores = {row[0]: dict(zip(COLUMNS, row[1:], strict=False)) | {"sequences": aucs[row[0]]} for row in rows}
        (options.output / "scores.json").write_text(json.dumps({"title": title, "trackers": scores}, indent=2) + "\n")


if __name__ == "__main__":
    main()
