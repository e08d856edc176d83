"""Mutated inputs for every command: made by the seed, run in forked processes, judged.

`python tests/torture/mutations.py --seed 7 --cases 100` prints a line for every case that is no good, and counts;
`--only 17 --keep FOLDER` repeats case 17 of that seed and leaves its files.
"""

import argparse
import inspect
import os
import re
import shutil
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where it is no test that runs

from broken_files import NUMBERS, WORDS, break_file
from forked_command import Outcome, run_forked
from good_inputs import GOOD
from targets import TARGETS, Target

from relo.commands.main import COMMANDS, LIGHTNING_COMMANDS

LONGEST_SENTENCE = 1000
"""Characters of an error, with the names of files in it."""

GOOD_VERDICTS = ("unchanged", "remark", "no telling", "refused")
"""What a command may make of a broken input: the same answer; another, and it says so; another where nobody could see
it (a pixel, a plausible number) or none is known; a refusal in a sentence."""

_OPTION_SHARE = 0.3  # of cases that break an option of the command line, where a target has files as well
_PATHS = ("/dev/null", "/dev/full", ".", "nowhere/at/all", "loop", "pipe", "x" * 300, "/proc/x")
_PROCESSES = ("--workers", "--jobs", "--threads")
_UNBELIEVABLE = re.compile(r"unbelievable|1e\+?308|10\*\*400|\binf\b|infinite")


@dataclass(frozen=True)
class Case:
    """One mutated input."""

    number: int
    target: Target
    way: str
    words: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What became of it; `verdict` is one of `GOOD_VERDICTS`, or what is wrong."""

    case: Case
    verdict: str
    outcome: Outcome

    def __str__(self) -> str:
        """What repeats it, and the end of what it said."""
        case = self.case
        said = (self.outcome.err.strip() or self.outcome.out.strip())[-700:]
        arguments = [argument[:60] for argument in case.arguments]
        return f"case {case.number}: {self.verdict}\n  {case.target.name}: {case.words}\n  relo {arguments}\n  {said}"


class Mutations:
    """The cases of a seed. Good inputs are made when a case first needs them, and kept in `folder`."""

    def __init__(self, folder: Path, seed: int, targets: Mapping[str, Target] = TARGETS) -> None:
        import_every_command()
        self._folder, self._seed, self._targets = folder, seed, list(targets.values())
        self._base: dict[str, tuple[Any, Outcome]] = {}

    def run(self, numbers: Iterable[int], keep: Path | None = None) -> Iterator[Verdict]:
        """Run cases; their folders are removed, but for `keep`."""
        for number in numbers:
            target = self._targets[number % len(self._targets)]
            base = self._good_run(target)
            folder = keep or self._folder / f"case {number}"
            try:
                case = self._make(number, target, folder)
                outcome = self._run(target, case.arguments, folder)
                yield Verdict(case, judge(case, outcome, folder, base), outcome)
            finally:
                if keep is None:
                    _remove(folder)

    def _make(self, number: int, target: Target, folder: Path) -> Case:
        random = Random(f"{self._seed} {number}")
        self._copy(target, folder)
        files = sorted({file for pattern in target.files for file in folder.glob(pattern) if file.is_file()})
        if not files or random.random() < _OPTION_SHARE:
            (folder / "loop").symlink_to("loop")
            os.mkfifo(folder / "pipe")
            arguments, words = break_option(target.arguments, random)
            return Case(number, target, "option", words, arguments)
        # Files of one kind and folder count as one: annotations are few among frames.
        kinds: dict[tuple[Path, str], list[Path]] = {}
        for file in files:
            kinds.setdefault((file.parent, file.suffix), []).append(file)
        broken = random.choice(kinds[random.choice(sorted(kinds))])
        way, words = break_file(broken, self._others(folder, broken), random)
        return Case(number, target, way, f"{broken.relative_to(folder).parent}/{words}", target.arguments)

    def _others(self, folder: Path, broken: Path) -> list[Path]:
        files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file != broken)
        return list({file.suffix: file for file in files}.values()) or [broken]

    def _copy(self, target: Target, folder: Path) -> None:
        folder.mkdir(parents=True)
        for name in target.inputs:
            made = self._folder / "good" / name
            if not made.exists():
                made.mkdir(parents=True)
                _in_a_process(lambda name=name, made=made: GOOD[name](made))
            shutil.copytree(made, folder, dirs_exist_ok=True)

    def _run(self, target: Target, arguments: tuple[str, ...], folder: Path) -> Outcome:
        return run_forked(arguments, folder, lambda: target.prepare(folder))

    def _good_run(self, target: Target) -> tuple[Any, Outcome]:
        """The answer to good inputs, and what was said to them."""
        if target.name not in self._base:
            folder = self._folder / "good run"
            self._copy(target, folder)
            outcome = self._run(target, target.arguments, folder)
            if outcome.code not in (0, 2) or (outcome.code and target.files):
                raise AssertionError(f"{target.name} fails with good inputs: {outcome}")
            self._base[target.name] = (target.answer(folder) if not outcome.code else None), outcome
            _remove(folder)
        return self._base[target.name]


def judge(case: Case, outcome: Outcome, folder: Path, base: tuple[Any, Outcome]) -> str:
    """The verdict on a case."""
    said = outcome.out + outcome.err
    if outcome.killed:
        return outcome.killed
    if outcome.code not in (0, 2):
        return f"exit code {outcome.code}"
    if "Traceback (most recent" in said:
        return "a traceback"
    errors = [line for line in outcome.err.splitlines() if line.startswith("relo: error: ")]
    if outcome.code == 2:
        if len(errors) != 1:
            return f"{len(errors)} sentences"
        if len(errors[0]) > LONGEST_SENTENCE:
            return f"a sentence of {len(errors[0])} characters"
        return "refused"
    if errors:
        return "an error and exit code 0"
    if case.way == "option":
        return "no telling"
    expected, good = base
    try:
        answer = case.target.answer(folder)
    except Exception as error:  # what was written cannot be read
        return f"an answer that cannot be read ({error!r})"
    if answer is None:
        return "no telling"
    if answer == expected:
        return "unchanged"
    if _sentences(said) - _sentences(good.out + good.err):
        return "remark"
    return "a changed answer in silence" if _UNBELIEVABLE.search(case.words) else "no telling"


def break_option(arguments: tuple[str, ...], random: Random) -> tuple[tuple[str, ...], str]:
    """A command line with another value of one of its options, or of one that it does without."""
    flags = [argument for argument in arguments if argument.startswith("--")]
    name = random.choice([*flags, *_options(arguments[:2])])
    value = random.choice(random.choice((NUMBERS, WORDS, _PATHS)))
    if name in _PROCESSES and value in ("1_0", "\uff13\uff10"):  # numbers that are meant so: this machine has two cores
        value = "0"
    changed = list(arguments)
    while name in changed:
        place = changed.index(name)
        del changed[place : place + 2]
    return (*changed, f"{name}={value}"), f"{name}={value[:40]!r}"


@cache
def _options(words: tuple[str, ...]) -> list[str]:
    """The flags that a command knows by its function's signature."""
    if words[0] in LIGHTNING_COMMANDS:
        return [
            *("--data.batch_size", "--data.workers", "--data.seed", "--data.clips_per_epoch", "--data.surroundings"),
            *("--trainer.max_steps", "--trainer.max_epochs", "--trainer.devices", "--trainer.precision", "--config"),
            *("--model.seed", "--model.init_from", "--model.rule", "--ckpt_path", "--seed_everything", "--trainer"),
        ]
    entry = COMMANDS[words[0]]
    command = entry[words[1]] if isinstance(entry, dict) else entry
    parameters = inspect.signature(_function(command[0])).parameters.values()
    return [f"--{each.name}" for each in parameters if each.kind is each.KEYWORD_ONLY and each.name != "open"]


def _function(place: str) -> Callable[..., None]:
    module, _, name = place.partition(":")
    function: Callable[..., None] = getattr(import_module(module), name)
    return function


def import_every_command() -> None:
    """So that forked processes start at once."""
    for entry in {**LIGHTNING_COMMANDS, **COMMANDS}.values():
        for place, _ in [entry] if isinstance(entry, tuple) else entry.values():
            _function(place)


def _sentences(text: str) -> set[str]:
    """What was said, whatever the numbers."""
    return {line for line in re.sub(r"[\d.]+", "0", text).splitlines() if re.search("[a-z]{3}", line)}


def _in_a_process(make: Callable[[], None]) -> None:
    """Call a function in a forked process: this one opens no store and starts no thread."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 1)
            make()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
        raise AssertionError("good inputs cannot be made")


def _remove(folder: Path) -> None:
    for inner, _, _ in os.walk(folder):
        os.chmod(inner, stat.S_IRWXU)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Run cases of a seed, and print what is no good."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--only", type=int)
    parser.add_argument("--keep", type=Path, help="a folder that is not there yet")
    parser.add_argument("--targets", default="", help="a regular expression of their names")
    options = parser.parse_args()
    targets = {name: target for name, target in TARGETS.items() if re.search(options.targets, name)}
    numbers = range(options.first, options.first + options.cases) if options.only is None else [options.only]
    counts: Counter[str] = Counter()
    ways: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        for verdict in Mutations(Path(folder), options.seed, targets).run(numbers, options.keep):
            counts[verdict.verdict] += 1
            ways[verdict.case.way] += 1
            if verdict.verdict not in GOOD_VERDICTS or options.only is not None:
                print(verdict, flush=True)
    print(dict(counts.most_common()), dict(ways.most_common()), sep="\n")


if __name__ == "__main__":
    main()
