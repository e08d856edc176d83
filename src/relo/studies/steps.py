"""A study's steps: each has a folder of its own, knows whether it is finished, and how it is done."""

import hashlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from relo.data.sequences.parsing import read_json
from relo.errors import UserError
from relo.files import write_text
from relo.settings import is_of
from relo.studies.study import Study, merged

_FINISHED = "finished.json"


@dataclass(frozen=True)
class Step(ABC):
    """Work of minutes, done by a process of its own that may be killed at any time."""

    name: str
    folder: Path  # where it works
    needs: "tuple[Step, ...]"  # what must be finished before

    @property
    def log(self) -> Path:
        """The file of what the process prints."""
        return self.folder / "output.log"

    @abstractmethod
    def is_finished(self) -> bool:
        """Whether its results are there, made with the settings that it has."""

    @abstractmethod
    def command(self) -> list[str]:
        """Write what the process reads, and give its command line."""

    @abstractmethod
    def finish(self, seconds: float) -> None:
        """Note that the process has ended well, after so many seconds."""


@dataclass(frozen=True)
class Training(Step):
    """One stage, trained with one seed, from the weights of the step before where there is one.

    Its folder is named after its settings: with others, it is another one.
    """

    label: str  # the stage, and what is changed in it
    digest: str  # a hash of the settings, of the clips' and of those of the stage before
    seed: int  # of weights, clips and actions
    config: Path | None  # the stage's
    changes: dict[str, Any] = field(hash=False)  # what is merged over it
    callbacks: list[Any] = field(hash=False)  # of both, see `callbacks_of`; the step's own would be put in their place
    given: Path | None = None  # weights that take the place of its own: there is nothing to train

    @property
    def checkpoint(self) -> Path:
        """The weights at the end; they are there earlier, too, where the training was stopped."""
        return self.given or self.folder / "last.ckpt"

    def is_finished(self) -> bool:
        """Whether the process has ended well, and the weights are still there."""
        return self.given is not None or ((self.folder / _FINISHED).is_file() and self.checkpoint.is_file())

    def versions(self) -> set[Path]:
        """The folders of trainings of this name, with whatever settings."""
        return set(self.folder.parent.parent.glob(f"{self.label}-{'?' * len(self.digest)}"))

    @property
    def seconds(self) -> float | None:
        """How long the training took; None where that is not known, for it was stopped in between."""
        with suppress(UserError):
            content = read_json(self.folder / _FINISHED)
            if isinstance(content, dict) and is_of(content.get("seconds"), float):
                return float(content["seconds"])
        return None

    def command(self) -> list[str]:
        """`relo fit`, which goes on where it was stopped."""
        settings, content = self.folder / "settings.yaml", merged(self.changes, self._own_settings())
        content["trainer"].pop("callbacks+", None)  # `callbacks` has them
        write_text(settings, yaml.safe_dump(content, sort_keys=False))
        resumed = ["--ckpt_path=last"] if self.checkpoint.exists() else []
        return [sys.executable, "-m", "relo", "fit", f"--config={self.config}", f"--config={settings}", *resumed]

    def finish(self, seconds: float) -> None:
        """Note the time."""
        resumed = any((self.folder / "log").glob("metrics_*.csv"))  # the log of the first part, beside the last's
        content = {"seconds": None if resumed else round(seconds, 1)}
        write_text(self.folder / _FINISHED, json.dumps(content) + "\n")

    def _own_settings(self) -> dict[str, Any]:
        """What a step sets itself: seeds, folders and the weights to start from."""
        folder = str(self.folder)
        logger = {"save_dir": folder, "name": "log", "version": ""}
        checkpoint = {
            "dirpath": folder,
            "save_last": True,
            "save_top_k": 0,
            "save_on_train_epoch_end": True,
            "enable_version_counter": False,  # a resumed run's weights take the place of those it began from
        }
        (before,) = self.needs or (None,)
        return {
            "seed_everything": self.seed,
            "trainer": {
                "default_root_dir": folder,
                "enable_progress_bar": False,
                "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": logger},
                "callbacks": [
                    *self.callbacks,
                    {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": checkpoint},
                ],
            },
            "model": {
                "seed": self.seed,
                "init_from": str(before.checkpoint) if isinstance(before, Training) else None,
            },
            "data": {"seed": self.seed},
        }


@dataclass(frozen=True)
class Result:
    """A file that an evaluation leaves behind, with a hash of everything that its content depends on."""

    path: Path
    digest: str
    is_whole: Callable[[dict[str, Any]], bool]  # whether what is read of its content is there

    def read(self) -> dict[str, Any]:
        """What it holds; nothing where it is missing, broken or of other settings."""
        with suppress(UserError):
            content = read_json(self.path)
            if isinstance(content, dict) and content.get("digest") == self.digest and self.is_whole(content):
                return content
        return {}

    def write(self, **content: Any) -> None:
        """Write the file, in full or not at all."""
        write_text(self.path, json.dumps({"digest": self.digest, **content}, indent=1) + "\n")


@dataclass(frozen=True)
class Evaluation(Step):
    """One row with one seed, on those test sets whose scores are missing."""

    study: Study = field(hash=False)
    row: str
    training: Training
    output: Path  # the results' folder
    rule: Path | None  # a file of tracking settings, where the training config's own are not used
    digest: str  # a hash of everything that the scores depend on but for the test sets

    @property
    def window(self) -> Result:
        """The choice of the window."""
        exponents = self.study.evaluation.window_exponents
        path = self.folder / ".window.json"  # no test set's name starts with a dot
        return Result(path, self.digest, lambda content: content.get("window_exponent") in exponents)

    def scores(self, test: str) -> Result:
        """Every sequence's AUC on a test set."""
        content = digest([self.digest, asdict(self.study.tests[test])])
        return Result(self.folder / f"{test}.json", content, _has_scores)

    def missing(self) -> list[str]:
        """The test sets whose scores are missing."""
        return [test for test in self.study.tests if not self.scores(test).read()]

    def is_finished(self) -> bool:
        """Whether no score is missing."""
        return not self.missing()

    def is_stale(self) -> bool:
        """Whether there are scores of other settings, which will be written over."""
        return any(self.scores(test).path.exists() for test in self.missing())

    def command(self) -> list[str]:
        """`relo.studies.evaluation`, which finds this step in the study again."""
        names = [self.study.path, self.output, self.row, self.training.seed, self.digest]
        return [sys.executable, "-m", "relo.studies.evaluation", *map(str, names)]

    def finish(self, seconds: float) -> None:
        """Nothing is left to note: the process has written the scores."""


def callbacks_of(settings: dict[str, Any]) -> list[Any]:
    """A stage's callbacks, by class path and arguments, but for those that save checkpoints."""
    found = []
    trainer = settings.get("trainer") or {}
    for named in (trainer.get("callbacks"), trainer.get("callbacks+")):
        for callback in named if isinstance(named, list) else [named] if named else []:
            entry = {"class_path": callback} if isinstance(callback, str) else callback
            if not str(entry.get("class_path")).endswith("ModelCheckpoint"):
                found.append(entry)
    return found


def _has_scores(content: dict[str, Any]) -> bool:
    """Whether there is an AUC of at least one sequence, and all are AUCs."""
    aucs = content.get("auc")
    return isinstance(aucs, dict) and bool(aucs) and all(is_of(auc, float) and 0 <= auc <= 1 for auc in aucs.values())


def digest(content: Any) -> str:
    """A hash of plain data, short enough for a folder's name."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=5).hexdigest()
