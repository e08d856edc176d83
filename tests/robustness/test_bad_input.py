"""A user's mistake ends in one clear sentence and exit code 2, whatever the command."""

import copy
import json
import re
import shutil
import zlib
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
import torch

from relo.commands.main import run
from relo.data.clip_store import VERSION, ClipStore
from relo.errors import UserError
from relo.models.checkpoints.weights import save_network
from small_networks import make_network
from training_runs import ACTOR_CRITIC, NETWORK, WARMUP, Data, config, relo_here, write_config


@pytest.fixture(scope="module")
def good(tmp_path_factory, data):
    """Good data, config, checkpoint, model and frames, for the cases to break one thing of."""
    folder = tmp_path_factory.mktemp("good")
    path = write_config(folder / "config.yaml", config(data, WARMUP))
    with pytest.MonkeyPatch.context() as monkeypatch:
        relo_here(monkeypatch, "fit", "--config", path, "--trainer.max_steps=1", cwd=folder)
    save_network(make_network(), folder / "model")
    frames = folder / "frames"
    frames.mkdir()
    random = np.random.default_rng(0)
    for index in range(3):
        cv2.imwrite(str(frames / f"{index}.jpg"), random.integers(0, 255, (120, 160, 3), np.uint8))
    return Good(folder, data)


class Good:
    def __init__(self, folder: Path, data: Data) -> None:
        self.folder = folder
        self.data = data
        self.config = folder / "config.yaml"
        self.checkpoint = folder / "run/checkpoints/last.ckpt"
        self.track = ["track", folder / "frames", "--model", folder / "model", "--device", "cpu"]


def fit(good, tmp_path, change=lambda content: None, objective=WARMUP):
    """Arguments of a fit whose config is changed in one thing."""
    content = copy.deepcopy(config(good.data, objective))
    change(content)
    return ["fit", "--config", write_config(tmp_path / "config.yaml", content)]


def broken_store(good, tmp_path, change):
    """A copy of the training store; `change` is given its open transaction and its keys."""
    path = tmp_path / "broken"
    shutil.copytree(good.data.train, path)
    environment = lmdb.open(str(path), map_size=1 << 26)
    with environment.begin(write=True) as transaction:
        change(transaction, list(transaction.cursor().iternext(values=False)))
    environment.close()
    return path


def with_checksum(content):
    return content + zlib.crc32(content).to_bytes(4, "little")


def other_version(transaction, keys):
    manifest = json.loads(transaction.get(b"manifest")[:-4])
    transaction.put(b"manifest", with_checksum(json.dumps({**manifest, "version": VERSION + 1}).encode()))


def corrupt_frames(transaction, keys):
    for key in keys:
        if key.rpartition(b"/")[2].isdigit():
            transaction.put(key, with_checksum(transaction.get(key)[:-4][:100]))


# --- the mistakes: each gives arguments, and words of which every one must be in the message -----------------------


def missing_dataset_root(good, tmp_path):
    return ["data", "pack", "lasot", tmp_path / "nowhere", tmp_path / "store"], ["nowhere"]


def short_annotation(good, tmp_path):
    root = tmp_path / "lasot"
    shutil.copytree(good.data.test_root, root)
    annotation = next(root.rglob("groundtruth.txt"))
    annotation.write_text("\n".join(annotation.read_text().splitlines()[:-3]) + "\n")
    arguments = ["data", "pack", "lasot", root, tmp_path / "store", "--split", "test", "--workers", "0"]
    return arguments, [annotation.parent.name, "9", "12"]


def box_outside(good, tmp_path):
    return [*good.track, "--box", "500,500,20,20"], ["500", "160", "120"]


def box_that_is_none(good, tmp_path):
    return [*good.track, "--box", "somewhere"], ["--box", "somewhere", "x,y,w,h"]


def box_of_no_image(good, tmp_path):
    return [*good.track, "--box=-10000,-10000,30000,30000"], ["-10000", "30000", "160 x 120"]


def negative_box_outside(good, tmp_path):
    return [*good.track, "--box", "-50,30,30,30"], ["-50, 30, 30, 30", "outside"]


def box_with_a_gap(good, tmp_path):
    return [*good.track, "--box", "30,,20,20,20"], ["--box", "30,,20,20,20", "x,y,w,h"]


def box_file_in_utf16(good, tmp_path):
    path = tmp_path / "box.txt"
    path.write_text("30,30,20,20", encoding="utf-16")
    return [*good.track, "--box", path], [str(path), "UTF-8"]


def missing_device(good, tmp_path):
    return [*good.track, "--box", "30,30,20,20", "--device", "cuda:99"], ["'cuda:99'", "cpu"]


def device_without_a_name(good, tmp_path):
    arguments = ["test", "--model", good.folder / "model", "--dataset", "lasot", "--root", good.data.test_root]
    return [*arguments, "--output", tmp_path / "results", "--device", ""], ["--device", "empty value"]


def broken_model(good, tmp_path):
    return ["track", good.folder / "frames", "--box", "1,1,9,9", "--model", tmp_path / "none"], ["none"]


def corrupt_jpeg(good, tmp_path, workers=0):
    path = broken_store(good, tmp_path, corrupt_frames)

    def change(content):
        content["data"].update(train=[{"path": str(path)}], workers=workers)

    names = ClipStore(good.data.train).names
    return fit(good, tmp_path, change), ["Frame", "got10k/" + names[0][:10], str(path)]


def corrupt_jpeg_in_a_worker(good, tmp_path):
    return corrupt_jpeg(good, tmp_path, workers=1)


def store_of_another_version(good, tmp_path):
    path = broken_store(good, tmp_path, other_version)
    arguments = fit(good, tmp_path, lambda content: content["data"].update(train=[{"path": str(path)}]))
    return arguments, [str(path), f"version {VERSION + 1}", f"version {VERSION}"]


def missing_store(good, tmp_path):
    arguments = fit(good, tmp_path, lambda content: content["data"].update(train=[{"path": "data/none"}]))
    return arguments, ["data/none", "relo data pack"]


def absent_stores_of_a_recipe(good, tmp_path):
    there = {"path": str(good.data.train), "weight": 2.0}
    absent = [{"path": f"data/{name}_train"} for name in ("coco", "vasttrack")]
    arguments = fit(good, tmp_path, lambda content: content["data"].update(train=[there, *absent]))
    words = ["data/coco_train or data/vasttrack_train", "make data COCO=/path VASTTRACK=/path"]
    return arguments, [*words, f"--data.train '[{{path: {good.data.train}, weight: 2.0}}]'"]


def missing_validation_store(good, tmp_path):
    def change(content):
        content["data"]["validation"] = [{"path": "data/none"}]
        content["trainer"]["limit_val_batches"] = 1.0

    return fit(good, tmp_path, change), ["data/none", "relo data pack"]


def wider(content):
    content["model"]["network"] = network = copy.deepcopy(NETWORK)
    for part in ("encoder", "propagator"):
        network["init_args"][part]["init_args"]["width"] = 64


def checkpoint_of_another_network(good, tmp_path):
    arguments = [*fit(good, tmp_path, wider), "--ckpt_path", good.checkpoint]
    return arguments, [str(good.checkpoint), "another network", "of another shape"]


def validation_of_another_network(good, tmp_path):
    arguments, words = checkpoint_of_another_network(good, tmp_path)
    return ["validate", *arguments[1:], "--trainer.limit_val_batches=1.0"], words


def start_from_another_network(good, tmp_path):
    def change(content):
        wider(content)
        content["model"]["init_from"] = str(good.checkpoint)

    return fit(good, tmp_path, change), [str(good.checkpoint), "does not fit", "of another shape"]


def checkpoint_of_another_stage(good, tmp_path):
    arguments = [*fit(good, tmp_path, objective=ACTOR_CRITIC), "--ckpt_path", good.checkpoint]
    return arguments, [str(good.checkpoint), "another stage", "--model.init_from"]


def truncated_checkpoint(good, tmp_path):
    path = tmp_path / "half.ckpt"
    content = good.checkpoint.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return [*fit(good, tmp_path), "--ckpt_path", path], [str(path), "truncated"]


def truncated_last_checkpoint(good, tmp_path):
    path = tmp_path / "run/checkpoints/last.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(good.checkpoint.read_bytes()[:1000])
    return [*fit(good, tmp_path), "--ckpt_path", "last"], [str(path), "truncated"]


def checkpoint_with_code(good, tmp_path):
    path = tmp_path / "code.ckpt"
    torch.save({"state_dict": {}, "relo_network": print}, path)
    return [*fit(good, tmp_path), "--ckpt_path", path], [str(path), "run code"]


def missing_checkpoint(good, tmp_path):
    return [*fit(good, tmp_path), "--ckpt_path", tmp_path / "none.ckpt"], ["none.ckpt", "does not exist"]


def missing_last_checkpoint(good, tmp_path):
    return [*fit(good, tmp_path), "--ckpt_path", "last"], ["no last checkpoint", "checkpoints"]


def validation_without_weights(good, tmp_path):
    return ["validate", *fit(good, tmp_path)[1:]], ["no weights", "--ckpt_path"]


def unknown_config_key(good, tmp_path):
    return fit(good, tmp_path, lambda content: content["model"].update(learning_rat=1e-3)), ["learning_rat"]


def unknown_nested_key(good, tmp_path):
    def change(content):
        content["model"]["objective"] = {**WARMUP, "init_args": {**WARMUP["init_args"], "giou_wait": 1.0}}

    return fit(good, tmp_path, change), ["giou_wait"]


def wrong_type(good, tmp_path):
    return fit(good, tmp_path, lambda content: content["data"].update(batch_size="many")), ["batch_size", "many"]


def config_with_a_date_that_is_none(good, tmp_path):
    (tmp_path / "date.yaml").write_text("seed_everything: 2001-13-45\n")
    return ["fit", "--config", tmp_path / "date.yaml"], ["date.yaml", "no YAML"]


def rule_of_a_wrong_type(good, tmp_path):
    rule = {"templates": 2.5}
    return fit(good, tmp_path, lambda content: content["model"].update(rule=rule)), ["templates", "2.5"]


def rule_that_is_not_finite(good, tmp_path):
    rule = {"margin_px": float("nan")}
    return fit(good, tmp_path, lambda content: content["model"].update(rule=rule)), ["margin_px = nan", "finite"]


def rule_file_of_a_wrong_type(good, tmp_path):
    path = tmp_path / "rule.yaml"
    path.write_text("templates: 2\ntemplate_update_threshold: 5e-1\n")
    return [*good.track, "--box", "1,1,9,9", "--rule", path], [str(path), "template_update_threshold = '5e-1'", "0.5"]


def checkpoint_with_a_rule_of_a_wrong_type(good, tmp_path):
    checkpoint = torch.load(good.checkpoint, weights_only=True)
    checkpoint["relo_rule"]["released"] = "false"
    torch.save(checkpoint, tmp_path / "wrong.ckpt")
    arguments = [*good.track[:2], "--model", tmp_path / "wrong.ckpt", "--box", "1,1,9,9"]
    return arguments, ["wrong.ckpt", "released = 'false'", "true or false"]


def variant_that_does_not_exist(good, tmp_path):
    (tmp_path / "network.yaml").write_text("released_network: b512\n")
    return fit(good, tmp_path, lambda content: content["model"].update(network="network.yaml")), ["b512", "b256"]


def unknown_choice(good, tmp_path):
    arguments = [*fit(good, tmp_path), "--data.augmentation.search_around=prevous"]
    return arguments, ["Setting 'data.augmentation.search_around': prevous is none of 'truth', 'previous'"]


def wrong_type_on_the_command_line(good, tmp_path):
    return [*fit(good, tmp_path), "--trainer.max_steps", "few"], ["max_steps", "few"]


def unknown_class(good, tmp_path):
    def change(content):
        content["model"]["objective"] = {"class_path": "relo.learning.warmup.WarmUpObjective"}

    return fit(good, tmp_path, change), ["WarmUpObjective"]


def unknown_part(good, tmp_path):
    return fit(good, tmp_path, lambda content: content["model"].update(fresh_parts=["polisy"])), ["polisy", "policy"]


def missing_config(good, tmp_path):
    return ["fit", "--config", tmp_path / "none.yaml"], ["none.yaml"]


def config_that_is_no_yaml(good, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("model: [1, 2\ntrainer: }")
    return ["fit", "--config", path], ["bad.yaml"]


def missing_network_file(good, tmp_path):
    return fit(good, tmp_path, lambda content: content["model"].update(network="model/none.yaml")), ["model/none.yaml"]


def impossible_trainer(good, tmp_path):
    def change(content):
        content["trainer"]["accelerator"] = "abacus"

    return fit(good, tmp_path, change), ["trainer", "abacus"]


def too_few_clips(good, tmp_path):
    return fit(good, tmp_path, lambda content: content["data"].update(clips_per_epoch=1)), ["clips_per_epoch"]


def unknown_command(good, tmp_path):
    return ["trian"], ["trian", "fit"]


def unknown_data_command(good, tmp_path):
    return ["data", "packs"], ["relo data packs", "pack"]


def unknown_option(good, tmp_path):
    return [*good.track, "--box", "1,1,9,9", "--boxx", "1"], ["--boxx", "relo track --help"]


def missing_option(good, tmp_path):
    return good.track, ["box", "relo track --help"]


def unknown_option_of_fit(good, tmp_path):
    return [*fit(good, tmp_path), "--trainer.max_stepz=3"], ["max_stepz"]


def wrong_variant(good, tmp_path):
    return ["import", good.checkpoint, "--variant", "b512", "--output", tmp_path / "model"], ["variant", "b512", "b256"]


def no_released_checkpoint(good, tmp_path):
    arguments = ["import", good.checkpoint, "--variant", "b256", "--output", tmp_path / "model"]
    return arguments, [str(good.checkpoint), "'net'"]


def empty_results(good, tmp_path):
    (tmp_path / "empty").mkdir()
    given = ["--benchmark", "lasot", "--annotations", good.data.test_root]
    return ["evaluate", tmp_path / "empty", *given], ["holds no result of LaSOT: it is empty"]


def store_of_other_options(good, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(good.data.test, store)
    arguments = ["data", "pack", "lasot", good.data.test_root, store, "--split", "test", "--max_side", "64"]
    return [*arguments, "--workers", "0"], [str(store), "options", "max_side"]


MISTAKES = [
    missing_dataset_root,
    short_annotation,
    box_outside,
    box_that_is_none,
    box_of_no_image,
    negative_box_outside,
    box_with_a_gap,
    box_file_in_utf16,
    missing_device,
    device_without_a_name,
    broken_model,
    corrupt_jpeg,
    corrupt_jpeg_in_a_worker,
    store_of_another_version,
    missing_store,
    absent_stores_of_a_recipe,
    missing_validation_store,
    checkpoint_of_another_network,
    validation_of_another_network,
    start_from_another_network,
    checkpoint_of_another_stage,
    truncated_checkpoint,
    truncated_last_checkpoint,
    checkpoint_with_code,
    missing_checkpoint,
    missing_last_checkpoint,
    validation_without_weights,
    unknown_config_key,
    unknown_nested_key,
    wrong_type,
    config_with_a_date_that_is_none,
    rule_of_a_wrong_type,
    rule_that_is_not_finite,
    rule_file_of_a_wrong_type,
    checkpoint_with_a_rule_of_a_wrong_type,
    variant_that_does_not_exist,
    unknown_choice,
    wrong_type_on_the_command_line,
    unknown_class,
    unknown_part,
    missing_config,
    config_that_is_no_yaml,
    missing_network_file,
    impossible_trainer,
    too_few_clips,
    unknown_command,
    unknown_data_command,
    unknown_option,
    missing_option,
    unknown_option_of_fit,
    wrong_variant,
    no_released_checkpoint,
    empty_results,
    store_of_other_options,
]


@pytest.mark.parametrize("box", ["-5,30,30,30", "-.5;30;30;30", "-5 30 30 30"])
def test_a_value_may_begin_with_a_minus_sign(box, good, tmp_path, monkeypatch):
    relo_here(monkeypatch, *good.track, "--box", box, "--save", tmp_path / "boxes.txt", cwd=tmp_path)
    assert len((tmp_path / "boxes.txt").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--limit", "1e3"], "Setting 'limit': 1e3 is not a whole number"),
        (["--limit", "few"], "Setting 'limit': few is not a whole number"),
        (["--limit", ""], "Setting 'limit': '' is not a whole number"),
        (["--start", "1.5"], "Setting 'start': 1.5 is not a whole number"),
        (["--localization", "x"], "Setting 'localization': x is none of 'policy', 'prior'"),
        (["--localization", "[policy]"], "Setting 'localization': ['policy'] is none of 'policy', 'prior'"),
        (["--precision", "half"], "half is none of 'auto', 'float32', 'bfloat16', 'float16'"),
    ],
)
def test_a_value_of_a_wrong_type_is_named_in_words(option, words):
    with pytest.raises(UserError, match=re.escape(f"{words} (see `relo track --help`)")):
        run(["track", "frames", "--box", "1,1,9,9", "--model", "model", *option])


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_one_clear_sentence(mistake, good, tmp_path, monkeypatch, capsys):
    arguments, words = mistake(good, tmp_path)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        relo_here(monkeypatch, *arguments, cwd=tmp_path)
    captured = capsys.readouterr()
    assert stop.value.code == 2, captured
    assert "Traceback" not in captured.err + captured.out
    (sentence,) = [line for line in captured.err.splitlines() if line.startswith("relo: error: ")]
    print(sentence)
    assert captured.err.rstrip().endswith(sentence)
    assert [word for word in words if word not in sentence] == [], sentence
    assert len(sentence) < 600, "too long to read"
