"""The specifications agree with each other, and what reads them has all of them."""

import pytest

from relo.commands.data import pack
from relo.commands.evaluate import evaluate
from relo.commands.test import run_benchmark
from relo.data.sequences.datasets import BENCHMARKS, DATASETS, find_benchmark, find_dataset, forms_of
from relo.data.sequences.specification import canonical_name
from relo.data.synthetic.command import synthesize
from relo.data.synthetic.layouts import LAYOUTS
from relo.errors import UserError
from relo.evaluation.rules import RULES

EVERY = {**BENCHMARKS, **DATASETS}


def test_a_name_is_of_one_dataset():
    names = [name for dataset in EVERY.values() for name in (dataset.name, *dataset.aliases, *dataset.parts)]
    assert len(names) == len(set(names))
    assert all(name == canonical_name(name) for name in names)


@pytest.mark.parametrize("dataset", EVERY.values(), ids=EVERY)
def test_what_a_specification_names_is_there(dataset):
    assert not dataset.rule or dataset.rule in RULES
    assert set(dataset.traces) <= set(dataset.splits)
    assert set(dataset.lists) <= set(dataset.splits)
    assert set(dataset.first_box_only) <= set(dataset.splits)
    assert set(dataset.scored_absent) <= set(dataset.absent)
    assert all(name in DATASETS for name in dataset.variants[1].values())
    assert (dataset.listing is None) or "{" in dataset.folder


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (("otb", "OTB-100", "otb2015"), "otb100"),
        (("lasot_ext", "LaSOT-Ext", "lasot_extension_subset"), "lasot_extension"),
        (("nfs30",), "nfs"),
        (("GOT-10k",), "got10k"),
    ],
)
def test_aliases_are_accepted_for_reading_and_for_scoring(names, name):
    assert {find_dataset(each).name for each in names} == {find_benchmark(each).name for each in names} == {name}


def test_parts_and_other_forms_are_scored_as_their_dataset(tmp_path):
    assert find_benchmark("OTB2013").name == "otb100"
    assert find_benchmark("nfs_released").name == find_benchmark("nfs_pytracking").name == "nfs"
    assert [form.name for form in forms_of(BENCHMARKS["nfs"])] == ["nfs_released", "nfs", "nfs_pytracking"]
    with pytest.raises(UserError, match="no dataset 'otb2013'"):
        find_dataset("otb2013")
    with pytest.raises(UserError, match="no benchmark 'coco'; the benchmarks are lasot"):
        find_benchmark("coco")


@pytest.mark.parametrize(
    ("command", "names"),
    [(pack, DATASETS), (run_benchmark, DATASETS), (evaluate, BENCHMARKS), (synthesize, LAYOUTS)],
)
def test_help_texts_name_them(command, names):
    assert ", ".join(names) in command.__doc__


def test_layouts_are_of_datasets():
    assert set(LAYOUTS) <= set(DATASETS)
