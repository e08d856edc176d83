"""Everything known of every dataset, each in one `Dataset`; `specification` says what its fields mean.

Readers, `relo data`, `relo test`, `relo evaluate`, `relo submit`, tracking rules and the help texts read it here.

To add a dataset:

1. Add a `Dataset` here: its names, how its sequences are listed (`listings`), where their files lie, which rule scores
   it. What its files have that no other's have is a function in `traps`, which the `Dataset` names; sequences that are
   no folders of frames need a reader of their own (`base.SequenceReader`), such as `coco.COCO`.
2. Put it into `_ALL`, ahead of every dataset whose marks its folders have too: a folder is of the first that fits.
3. Name its reader in `relo.data.sequences`, for those who read it from Python.
4. If it is scored by a protocol that is not there yet, add the rule to `relo.evaluation.rules`.
5. Say in docs/data.md where to download it and what it is good for.

A target is visible where its box has a size and no flag of `absent` is set.
"""

from dataclasses import replace

from relo.data.sequences import traps
from relo.data.sequences.coco import COCO
from relo.data.sequences.listings import in_classes, in_folders, in_table
from relo.data.sequences.photos import Photographs
from relo.data.sequences.specification import Dataset, Submission, canonical_name, class_in_name, rows_of_boxes
from relo.errors import UserError

_LASOT = Dataset(
    name="lasot",
    title="LaSOT",
    splits=("train", "test"),
    marks=(
        "*/*-*/full_occlusion.txt",
        "*/*-*/img",
        "*-*/full_occlusion.txt",
        "training_set.txt",
        "testing_set.txt",
    ),
    listing=in_classes,
    lists={"train": "training_set.txt", "test": "testing_set.txt"},
    official=traps.lasot_names,
    nested=2,
    zero_based=False,
    # Absent frames: either flag, one comma-separated line per file. They cannot be had from boxes: many absent frames
    # still carry one.
    absent=("{name}/full_occlusion.txt", "{name}/out_of_view.txt"),
    sentence="{name}/nlp.txt",
    facts=traps.lasot_facts,
    rule="lasot",
    prefixes=("lasot_",),
)

# 150 sequences of 15 further classes. The images of `paddle-1` do not match the toolkit's annotation of it: the one
# beside the images is read.
_LASOT_EXTENSION = replace(
    _LASOT,
    name="lasot_extension",
    title="LaSOT_ext",
    aliases=("lasot_ext", "lasotext", "lasot_extension_subset"),
    splits=("test",),
    marks=(),
    lists={},
    official=None,
    zero_based=True,
    rule="lasot_ext",
    prefixes=("lasot_extension_subset_",),
)

# Absent frames carry boxes of -1, of zeros, or left-over ones, and boxes may reach out of the image. The resolution
# changes inside some sequences (Val_000136, Val_000137, Train_007947 and a few more).
_GOT10K = Dataset(
    name="got10k",
    title="GOT-10k",
    aliases=("got_10k",),
    parts=("got10k_val", "got_10k_val"),
    splits=("train", "val", "test"),
    other_splits=("vot-train",),
    traces={"train": "train", "val": "val", "test": "test"},
    marks=("train/list.txt", "val/list.txt", "test/list.txt", "*/GOT-10k_*_*"),
    listing=traps.in_got10k_lists,
    frames=("{name}",),
    first_box_only=("test",),
    absent=("{name}/absence.label", "{name}/cover.label"),
    scored_absent=("{name}/cover.label",),  # the toolkit looks at nothing else
    image_size=traps.got10k_image_size,
    facts=traps.got10k_facts,
    rule="got10k",
    scored_in=("val", "test", ""),
    names_start="GOT-10k_",
    submission=Submission(
        "{name}/{name}_{run:03d}.txt", "%.4f", 180, "{name}/{name}_time.txt", numbered="GOT-10k_Test_{:06d}"
    ),
)

# Frames are numbered from 0 without padding, and names may start with a dash. Training boxes were interpolated by
# trackers, and some are wrong. An incomplete unzip is common.
_TRACKINGNET = Dataset(
    name="trackingnet",
    title="TrackingNet",
    splits=("train", "test"),
    traces={"train": "TRAIN_*", "test": "TEST"},
    marks=("TRAIN_*", "TEST/anno"),
    listing=traps.in_trackingnet_folders,
    frames=("frames/{name}",),
    first_frame=0,
    boxes=("anno/{name}.txt",),
    first_box_only=("test",),
    rule="trackingnet",
    scored_in=("TEST",),
    submission=Submission("{name}.txt", "%.2f", 511),
)

_COCO = Dataset(
    name="coco",
    title="COCO",
    splits=("train2017", "val2017"),
    traces={"train2017": "*/*train2017*", "val2017": "*/*val2017*"},
    marks=("annotations/instances_*.json",),
    reader=COCO,
)

# An absent target has a row of zeros. One sequence has no sentence; some copies write `groundtruth.txt` small.
_VASTTRACK = Dataset(
    name="vasttrack",
    title="VastTrack",
    splits=("train", "test"),
    marks=("*/*-*/Groundtruth.txt", "vasttrack_*_list.txt"),
    listing=in_classes,
    lists={"train": "vasttrack_train_list.txt", "test": "vasttrack_test_list.txt"},
    nested=2,
    frames=("{name}/imgs",),
    boxes=("{name}/Groundtruth.txt", "{name}/groundtruth.txt"),
    sentence="{name}/nlp.txt",
    facts=class_in_name,
    rule="vasttrack",
    flags_may_be_longer=True,
)

# Images are named differently from sequence to sequence. An absent target has a row of zeros; boxes may reach far out
# of the image. Train and test are downloaded apart, each to a root of its own. The test image
# `test_015_Sord_video_Q01_done/imgs/00000492.png` is damaged in the download; its replacement is in the authors'
# repository.
_TNL2K = Dataset(
    name="tnl2k",
    title="TNL2K",
    splits=("test",),
    other_splits=("train",),
    marks=("*/imgs", "*/language.txt"),
    listing=in_folders,
    shown_by=("groundtruth.txt",),
    frames=("{name}/imgs",),
    first_frame=None,
    ignored_images=("firstFrame_bbox.jpg",),
    fit=traps.leave_out_the_last_image,
    sentence="{name}/language.txt",
    rule="tnl2k",
    flags_may_be_longer=True,
)

# Need for Speed at 30 frames per second comes in three forms: the authors', which VATIC annotated; with boxes as
# OSTrack and RELO read them; and as pytracking reads it, images and boxes apart.
_NFS = Dataset(
    name="nfs",
    title="NFS",
    aliases=("nfs30", "nfs_30"),
    variants=("variant", {"original": "nfs", "pytracking": "nfs_pytracking", "released": "nfs_released"}),
    marks=("*/30",),
    listing=in_folders,
    shown_by=("30",),
    frames=("{name}/30/{name}",),
    boxes=("{name}/30/{name}.txt",),
    read=traps.read_vatic,
    fit=traps.cut_the_longer,
    boxes_may_be_longer=True,
    rule="otb",
    prefixes=("nfs_",),
)

_BOXES_OF_NFS = replace(
    _NFS, aliases=(), variant_of="nfs", variants=("", {}), read=rows_of_boxes, boxes_may_be_longer=False
)

_NFS_RELEASED = replace(
    _BOXES_OF_NFS,
    name="nfs_released",
    marks=("*/30/*_pytracking.txt",),
    boxes=("{name}/30/{name}_pytracking.txt",),
)

_NFS_PYTRACKING = replace(
    _BOXES_OF_NFS,
    name="nfs_pytracking",
    marks=("anno/nfs_*.txt",),
    shown_by=(),
    frames=("sequences/{name}",),
    boxes=("anno/nfs_{name}.txt",),
)

# 123 sequences in 91 folders: `car1_1`, `car1_2` and `car1_3` are ranges of the folder `car1`, and adjacent ones share
# a frame. A row of NaN says that the target is hidden or out of view.
_UAV123 = Dataset(
    name="uav123",
    title="UAV123",
    aliases=("uav",),
    variants=("fps", {30: "uav123", 10: "uav123_10fps"}),
    marks=("data_seq/UAV123",),
    listing=in_table,
    table="uav123.csv",
    own_table="anno/UAV123/ranges.csv",
    frames=("data_seq/UAV123/{folder}",),
    boxes=("anno/UAV123/{name}.txt",),
    rule="otb",
    scored_in=("", "UAV123"),
    prefixes=("uav_",),
)

_UAV123_10FPS = replace(
    _UAV123,
    name="uav123_10fps",
    title="UAV123@10fps",
    aliases=(),
    variants=("", {}),
    marks=("data_seq/UAV123_10fps",),
    own_table="anno/UAV123_10fps/ranges.csv",
    every=3,
    frames=("data_seq/UAV123_10fps/{folder}",),
    boxes=("anno/UAV123_10fps/{name}.txt",),
    scored_in=("", "UAV123_10fps"),
)

_UAV20L = Dataset(
    name="uav20l",
    title="UAV20L",
    boxes=("anno/UAV20L/{name}.txt",),
    rule="otb",
    scored_in=("", "UAV123"),
    prefixes=("uav_",),
)

# The table says which frames count: David starts at image 300 and BlurCar1, 3 and 4 at 247, 3 and 18, as their
# annotations do; Football1, Freeman3, Freeman4 and Diving end before their images; Tiger1 counts from image 6, but is
# annotated from image 1 (copies of 349 rows exist as well). Jogging and Skating2 hold two targets, each a sequence; of
# Human4's two annotations the first is empty. Numbers are delimited by commas, tabs or spaces.
_OTB100 = Dataset(
    name="otb100",
    title="OTB-100",
    aliases=("otb", "otb_100", "otb2015", "otb_2015"),
    parts=("otb50", "otb_50", "otb2013", "otb_2013"),
    listing=in_table,
    table="otb100.csv",
    frames=("{folder}/img",),
    boxes=("{folder}/{annotation}",),
    counted_from_image_1=True,
    zero_based=False,
    rule="otb",
    prefixes=("otb_",),
    result_names={"human4": "human4_2"},
)

_DTB70 = Dataset(
    name="dtb70",
    title="DTB70",
    aliases=("dtb",),
    listing=in_folders,
    shown_by=("img", "groundtruth_rect.txt"),
    boxes=("{name}/groundtruth_rect.txt",),
    rule="otb",
)

# Anyone's own data. Images are taken in the natural order of their names, which differ in their numbers alone. A frame
# without a box is written as `0,0,0,0` or `nan,nan,nan,nan`.
_PLAIN = Dataset(
    name="plain",
    title="own data",
    splits=("all",),
    marks=("*/groundtruth.txt", "*/groundtruth_rect.txt"),
    listing=in_folders,
    shown_by=("groundtruth.txt", "groundtruth_rect.txt"),
    frames=("{name}/img", "{name}"),
    first_frame=None,
    boxes=("{name}/groundtruth.txt", "{name}/groundtruth_rect.txt"),
    fit=traps.first_box_or_all,
    absent=("{name}/absent.txt",),
    absent_if_there=True,
    rule="otb",
)

_PHOTOS = Dataset(
    name="photos",
    title="photographs",
    splits=("all",),
    other_splits=("train", "val", "test"),
    marks=("boxes.jsonl", "masks/*_*.png"),
    reader=Photographs,
)

# In this order help texts name them, and folders are recognised: `nfs_released` before `nfs`, whose marks its folders
# have as well, and `plain`, whose marks many have, after the benchmarks.
_ALL = (
    _LASOT,
    _LASOT_EXTENSION,
    _GOT10K,
    _TRACKINGNET,
    _COCO,
    _VASTTRACK,
    _TNL2K,
    _NFS_RELEASED,
    _NFS,
    _NFS_PYTRACKING,
    _UAV123,
    _UAV123_10FPS,
    _UAV20L,
    _OTB100,
    _DTB70,
    _PLAIN,
    _PHOTOS,
)

DATASETS = {dataset.name: dataset for dataset in _ALL if dataset.listing or dataset.reader}
"""The datasets that can be read, by name; a folder is recognised as the first whose marks it has."""

BENCHMARKS = {dataset.name: dataset for dataset in _ALL if dataset.rule and not dataset.variant_of}
"""The datasets that are scored, by name."""


_BY_NAME = {name: dataset for dataset in _ALL for name in (dataset.name, *dataset.aliases, *dataset.parts)}


def find_dataset(name: str) -> Dataset:
    """The dataset of a name or an alias, whatever its case and separators.

    Raises:
        UserError: there is none that can be read.
    """
    wanted = canonical_name(name)
    dataset = _BY_NAME.get(wanted)
    if dataset is None or dataset.name not in DATASETS or wanted in dataset.parts:
        raise UserError(f"There is no dataset {name!r}; known are {', '.join(DATASETS)}.")
    return dataset


def find_benchmark(name: str) -> Dataset:
    """The benchmark of a name or an alias of it, of a part or of another form, whatever its case and separators.

    Raises:
        UserError: there is no such benchmark.
    """
    dataset = _BY_NAME.get(canonical_name(name))
    if dataset is None or not dataset.rule:
        raise UserError(f"There is no benchmark {name!r}; the benchmarks are {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[dataset.variant_of or dataset.name]


def forms_of(benchmark: Dataset) -> list[Dataset]:
    """A benchmark's own form and the others in which it comes, first those by which a folder is recognised first."""
    return [dataset for dataset in _ALL if benchmark.name in (dataset.name, dataset.variant_of)]
