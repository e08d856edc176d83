"""The steps of a study: each has a folder of its own, knows whether it is finished, and how it is done."""

import hashlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from relo.studies.study import EvaluationSettings, Recorded, Rendering, RowLocalization, read_settings
from relo.tracking.boxes_file import write_whole

CHECKPOINT = "last.ckpt"
SETS = ("tests", "validation")
"""The folders, in the results' folder, of the sequences to evaluate on."""
_FINISHED = "finished.json"
_WINDOW = ".window.json"  # no test set's name starts with a dot


@dataclass(frozen=True)
class Step(ABC):
    """Contract: work of minutes, done by a process of its own that may be killed at any time."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What to call it."""

    @property
    @abstractmethod
    def needs(self) -> "tuple[Step, ...]":
        """The steps that must be finished before."""

    @abstractmethod
    def folder(self, output: Path) -> Path:
        """Where it works, in the results' folder `output`."""

    @abstractmethod
    def is_finished(self, output: Path) -> bool:
        """Whether its results are there, made with the settings that it has."""

    @abstractmethod
    def command(self, output: Path) -> list[str]:
        """Write what the process reads, and give its command line."""

    @abstractmethod
    def finish(self, output: Path, seconds: float) -> None:
        """Note that the process has ended well, after so many seconds."""

    def log(self, output: Path) -> Path:
        """The file of what the process prints."""
        return self.folder(output) / "output.log"


@dataclass(frozen=True)
class Training(Step):
    """One stage, trained with one seed. Its folder is named after its settings: with others, it is another one.

    Attributes:
        label: the stage, and what is overridden in it.
        seed: of weights, clips and actions.
        configs: the configs, the later over the earlier.
        start: the stage whose weights it starts from.
        digest: of the settings, of the clips' and of those of `start`.
    """

    label: str
    seed: int
    configs: tuple[Path, ...]
    start: "Training | None"
    digest: str

    @property
    def name(self) -> str:
        """Label and seed."""
        return f"{self.label}, seed {self.seed}"

    @property
    def needs(self) -> tuple[Step, ...]:
        """The stage before."""
        return () if self.start is None else (self.start,)

    def folder(self, output: Path) -> Path:
        """`training/<label>-<digest>/seed<n>`."""
        return output / "training" / f"{self.label}-{self.digest}" / f"seed{self.seed}"

    def checkpoint(self, output: Path) -> Path:
        """The weights at the end; they are there earlier, too, where the training was stopped."""
        return self.folder(output) / CHECKPOINT

    def is_finished(self, output: Path) -> bool:
        """Whether the process has ended well, and the weights are still there."""
        return (self.folder(output) / _FINISHED).is_file() and self.checkpoint(output).is_file()

    def seconds(self, output: Path) -> float | None:
        """How long the training took; None where that is not known, for it was stopped in between."""
        with suppress(OSError, ValueError):
            seconds = json.loads((self.folder(output) / _FINISHED).read_text())["seconds"]
            return None if seconds is None else float(seconds)
        return None

    def command(self, output: Path) -> list[str]:
        """`relo fit`, which goes on where it was stopped."""
        folder = self.folder(output)
        write_whole(folder / "settings.yaml", yaml.safe_dump(self._settings(output), sort_keys=False))
        configs = [f"--config={path}" for path in (*self.configs, folder / "settings.yaml")]
        resumed = ["--ckpt_path=last"] if self.checkpoint(output).exists() else []
        return [sys.executable, "-m", "relo", "fit", *configs, *resumed]

    def finish(self, output: Path, seconds: float) -> None:
        """Note the time."""
        settings = self.folder(output) / "settings.yaml"
        # A resumed run keeps the log of its first part beside its own.
        resumed = any((settings.parent / "log").glob("metrics_*.csv"))
        content = {"seconds": None if resumed else round(seconds, 1)}
        write_whole(self.folder(output) / _FINISHED, json.dumps(content) + "\n")

    def _settings(self, output: Path) -> dict[str, Any]:
        """What a step sets itself: seeds, folders and the weights to start from."""
        folder = str(self.folder(output))
        checkpoint = {"dirpath": folder, "save_last": True, "save_top_k": 0, "save_on_train_epoch_end": True}
        checkpoint["enable_version_counter"] = False  # a resumed run's weights take the place of those it began from
        logger = {"save_dir": folder, "name": "log", "version": ""}
        return {
            "seed_everything": self.seed,
            "trainer": {
                "default_root_dir": folder,
                "enable_progress_bar": False,
                "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": logger},
                "callbacks": [
                    {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": checkpoint},
                ],
            },
            "model": {
                "seed": self.seed,
                "init_from": None if self.start is None else str(self.start.checkpoint(output)),
            },
            "data": {"seed": self.seed},
        }


@dataclass(frozen=True)
class GivenWeights(Training):
    """Weights that a study starts from, in the warm-up's place.

    Attributes:
        path: the checkpoint or model folder.
    """

    path: Path

    def checkpoint(self, output: Path) -> Path:
        """The weights, wherever they lie."""
        return self.path

    def is_finished(self, output: Path) -> bool:
        """They are."""
        return True

    def seconds(self, output: Path) -> float | None:
        """Not known."""
        return None

    def command(self, output: Path) -> list[str]:
        """There is nothing to do."""
        raise NotImplementedError


@dataclass(frozen=True)
class Evaluation(Step):
    """One row with one seed, on those test sets whose scores are missing.

    Attributes:
        row: the row's name.
        training: what it is evaluated after.
        localization: the map that picks the cell.
        tests: the test sets.
        validation: the sets that the window is chosen on.
        settings: how rows are evaluated.
        rule: the settings in `settings.rule`.
    """

    row: str
    training: Training
    localization: RowLocalization
    tests: Mapping[str, Rendering | Recorded] = field(hash=False)
    validation: Mapping[str, Rendering | Recorded] = field(hash=False)
    settings: EvaluationSettings = field(hash=False)
    rule: Path | None

    @property
    def name(self) -> str:
        """Row and seed."""
        return f"{self.row}, seed {self.training.seed}: evaluation"

    @property
    def needs(self) -> tuple[Step, ...]:
        """The training."""
        return (self.training,)

    def folder(self, output: Path) -> Path:
        """`scores/<row>/seed<n>`."""
        return output / "scores" / self.row / f"seed{self.training.seed}"

    def digest(self, test: str) -> str:
        """Of everything that the scores on a test set depend on."""
        return digest([self._window_digest(), asdict(self.tests[test])])

    def _window_digest(self) -> str:
        """Of everything that the choice of the window depends on."""
        evaluation = asdict(self.settings) | {"rule": None if self.rule is None else resolved(self.rule)}
        validation = {name: asdict(entry) for name, entry in self.validation.items()}
        return digest([self.training.digest, self.localization, evaluation, validation])

    def window_exponent(self, output: Path) -> float | None:
        """The exponent that was chosen; None where there is no choice, or it has not been made."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads((self.folder(output) / _WINDOW).read_text())
            if content["digest"] == self._window_digest():
                return float(content["window_exponent"])
        return None

    def aucs(self, output: Path, test: str) -> dict[str, float] | None:
        """Every sequence's AUC; None where they are missing or of other settings."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(self._file(output, test).read_text())
            if content["digest"] == self.digest(test):
                return dict(content["auc"])
        return None

    def missing(self, output: Path) -> list[str]:
        """The test sets whose scores are missing."""
        return [test for test in self.tests if self.aucs(output, test) is None]

    def is_finished(self, output: Path) -> bool:
        """Whether no score is missing."""
        return not self.missing(output)

    def is_stale(self, output: Path) -> bool:
        """Whether there are scores of other settings, which will be written over."""
        return any(self._file(output, test).exists() for test in self.missing(output))

    def command(self, output: Path) -> list[str]:
        """`relo.studies.evaluation`, with a request that says what is to be done."""
        request = {
            "checkpoint": str(self.training.checkpoint(output)),
            "localization": self.localization,
            "rule": None if self.rule is None else str(self.rule),
            "batch_size": self.settings.batch_size,
            "precision": self.settings.precision,
            "window": self._window_request(output),
            "tests": [
                {
                    **_source(output, "tests", test, self.tests[test]),
                    "digest": self.digest(test),
                    "output": str(self._file(output, test)),
                }
                for test in self.missing(output)
            ],
        }
        path = self.folder(output) / "request.json"
        write_whole(path, json.dumps(request, indent=2) + "\n")
        return [sys.executable, "-m", "relo.studies.evaluation", str(path)]

    def finish(self, output: Path, seconds: float) -> None:
        """Nothing is left to note: the process has written the scores."""

    def _window_request(self, output: Path) -> dict[str, Any] | None:
        """How the window is chosen; None where there is no choice."""
        if self.localization == "oracle" or not self.settings.window_exponents:
            return None
        return {
            "chosen": self.window_exponent(output),
            "exponents": self.settings.window_exponents,
            "validation": [_source(output, "validation", name, entry) for name, entry in self.validation.items()],
            "digest": self._window_digest(),
            "output": str(self.folder(output) / _WINDOW),
        }

    def _file(self, output: Path, test: str) -> Path:
        return self.folder(output) / f"{test}.json"


def rendered(output: Path, kind: str, name: str) -> Path:
    """Where rendered sequences to evaluate on lie; `kind` is one of `SETS`."""
    return output / kind / name


def _source(output: Path, kind: str, name: str, sequences: Rendering | Recorded) -> dict[str, str]:
    if isinstance(sequences, Recorded):
        return {"root": str(output / sequences.path), "dataset": sequences.dataset, "split": sequences.split}
    return {"root": str(rendered(output, kind, name)), "dataset": "lasot", "split": "test"}


def digest(content: Any) -> str:
    """Ten letters and digits that tell plain data apart."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=5).hexdigest()


def resolved(path: Path) -> Any:
    """The settings in a config, those of the YAML files that it names in their place.

    Raises:
        UserError: a file is no YAML.
    """
    return _resolved(read_settings(path), path.parent)


def _resolved(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {str(name): _resolved(entry, folder) for name, entry in value.items()}
    if isinstance(value, list):
        return [_resolved(entry, folder) for entry in value]
    if isinstance(value, str) and value.endswith((".yaml", ".yml")) and (folder / value).is_file():
        return resolved(folder / value)
    return value
