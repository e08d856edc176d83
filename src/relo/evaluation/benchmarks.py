"""The benchmarks: which rule scores each, and how its annotations and results are named."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from relo.data.sequences.lasot import challenge_attributes
from relo.data.sequences.tables import read_table
from relo.errors import UserError


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: what it is called on the command line.
        title: what it is called in a report, and in the table of published results.
        rule: the name of the rule that its authors score by.
        layout: the folder layout of the dataset (see `annotations.LAYOUTS`).
        other_names: further names on the command line.
        prefixes: what some toolkits put before a sequence's name in result files.
        result_names: spellings of sequences in result files that follow no rule.
        test_sequences: the official test set, where annotations often come for the whole dataset.
        test_list: the file in the dataset's root that names its test set, and then counts instead.
        only_first_frame_public: its test truth is kept by a server.
        flags_may_be_longer: flags beyond the last box are ignored, as the toolkit does.
    """

    name: str
    title: str
    rule: str
    layout: str
    other_names: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    result_names: tuple[tuple[str, str], ...] = ()
    test_sequences: Callable[[], Collection[str]] | None = None
    test_list: str | None = None
    only_first_frame_public: bool = False
    flags_may_be_longer: bool = False


_BENCHMARKS = (
    Benchmark(
        "lasot",
        "LaSOT",
        "lasot",
        "classes",
        prefixes=("lasot_",),
        test_sequences=challenge_attributes,
        test_list="testing_set.txt",
    ),
    Benchmark(
        "lasot_ext",
        "LaSOT_ext",
        "lasot_ext",
        "classes",
        other_names=("lasot_extension", "lasotext", "lasot_extension_subset"),
        prefixes=("lasot_extension_subset_",),
    ),
    Benchmark("trackingnet", "TrackingNet", "trackingnet", "trackingnet", only_first_frame_public=True),
    Benchmark(
        "got10k",
        "GOT-10k",
        "got10k",
        "got10k",
        other_names=("got_10k", "got10k_val", "got_10k_val"),
        only_first_frame_public=True,
    ),
    Benchmark("tnl2k", "TNL2K", "tnl2k", "sequences", flags_may_be_longer=True),
    Benchmark(
        "vasttrack",
        "VastTrack",
        "vasttrack",
        "classes",
        test_list="vasttrack_test_list.txt",
        flags_may_be_longer=True,
    ),
    Benchmark(
        "otb",
        "OTB-100",
        "otb",
        "otb",
        other_names=("otb100", "otb_100", "otb2015", "otb_2015", "otb50", "otb_50", "otb2013", "otb_2013"),
        prefixes=("otb_",),
        result_names=(("human4", "human4_2"),),
    ),
    Benchmark("uav123", "UAV123", "otb", "uav123", other_names=("uav",), prefixes=("uav_",)),
    Benchmark("uav123_10fps", "UAV123@10fps", "otb", "uav123_10fps", prefixes=("uav_",)),
    Benchmark("uav20l", "UAV20L", "otb", "uav20l", prefixes=("uav_",)),
    Benchmark(
        "nfs",
        "NFS",
        "otb",
        "nfs",
        other_names=("nfs30", "nfs_30", "nfs_pytracking", "nfs_released"),
        prefixes=("nfs_",),
    ),
    Benchmark("dtb70", "DTB70", "otb", "sequences", other_names=("dtb",)),
    Benchmark("plain", "own data", "otb", "sequences"),
)
BENCHMARKS = {benchmark.name: benchmark for benchmark in _BENCHMARKS}


def canonical_name(name: str) -> str:
    """A name without its case, and with every run of separators as one underscore: `Jogging(2)` is `jogging_2`."""
    return re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")


def find_benchmark(name: str) -> Benchmark:
    """The benchmark called `name`, whatever its case and separators.

    Raises:
        UserError: there is no such benchmark.
    """
    wanted = canonical_name(name)
    for benchmark in _BENCHMARKS:
        if wanted in (benchmark.name, *benchmark.other_names):
            return benchmark
    raise UserError(f"There is no benchmark {name!r}; the benchmarks are {', '.join(BENCHMARKS)}.")


def leading_rows(benchmark: Benchmark, name: str, rows: int) -> int:
    """How many of a file's `rows` lie before the frames that count.

    OTB scores some sequences from a later image on (Tiger1 from the 6th), but files that start at the first go round.
    """
    row = read_table("otb100.csv").get(name) if benchmark.layout == "otb" else None
    return int(row["first"]) - 1 if row is not None and row["last"] == str(rows) else 0


def check_origin(benchmark: Benchmark, lengths: Mapping[str, int], origin: object) -> None:
    """Refuse annotations whose sequences have another benchmark's names, or its lengths.

    Args:
        benchmark: the benchmark that they should be of.
        lengths: the number of frames of each sequence.
        origin: where they lie, for the error.

    Raises:
        UserError: most names are another benchmark's and none is this one's, or all lengths are those of UAV123 at the
            other frame rate.
    """
    other = _named_like_another(benchmark, lengths) or _at_another_rate(benchmark, lengths)
    if other is not None:
        raise UserError(
            f"{origin} holds annotations of {other.title} (such as {min(lengths)}), not of {benchmark.title}; give "
            f"those of {benchmark.title}, or --benchmark {other.name}."
        )


def _named_like_another(benchmark: Benchmark, names: Collection[str]) -> Benchmark | None:
    shares = {family: sum(map(belongs(), names)) / len(names) for family, belongs in _NAMED_LIKE.items()}
    family = max(shares, key=lambda family: shares[family])
    own = benchmark.name.partition("_10fps")[0]
    return BENCHMARKS[family] if family != own and shares[family] > 0.9 and not shares.get(own) else None


def _at_another_rate(benchmark: Benchmark, lengths: Mapping[str, int]) -> Benchmark | None:
    """UAV123 and UAV123@10fps have sequences of the same names."""
    if benchmark.name not in _UAV123_FRAME_STEPS:
        return None
    ranges = {canonical_name(name): row for name, row in read_table("uav123.csv").items()}
    found = {canonical_name(name): length for name, length in lengths.items()}
    fitting = []
    for name, step in _UAV123_FRAME_STEPS.items():
        frames = {key: (int(row["last"]) - 1) // step - (int(row["first"]) - 1) // step for key, row in ranges.items()}
        if all(frames.get(key) == length - 1 for key, length in found.items()):
            fitting.append(name)
    return BENCHMARKS[fitting[0]] if fitting and benchmark.name not in fitting else None


_UAV123_FRAME_STEPS = {"uav123": 1, "uav123_10fps": 3}


def _named_in_lasot() -> Callable[[str], bool]:
    return frozenset(challenge_attributes()).__contains__


def _named_in_got10k() -> Callable[[str], bool]:
    return lambda name: name.startswith("GOT-10k_")


def _named_in(table: str) -> Callable[[], Callable[[str], bool]]:
    def load() -> Callable[[str], bool]:
        known = frozenset(map(canonical_name, read_table(table)))
        return lambda name: canonical_name(name) in known

    return load


# Benchmarks whose sequences can be told by their names.
_NAMED_LIKE = {
    "lasot": _named_in_lasot,
    "got10k": _named_in_got10k,
    "otb": _named_in("otb100.csv"),
    "uav123": _named_in("uav123.csv"),
}
