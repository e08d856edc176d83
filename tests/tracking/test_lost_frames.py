import numpy as np
import pytest

from relo.tracking.lost_frames import remarks_on_lost_frames

RATE = 25.0


def remarks(positions, announced, *, ended=True, counted=False):
    """Of frames at these positions of a video of constant rate."""
    return remarks_on_lost_frames(
        [position / RATE for position in positions], announced, RATE, ended=ended, counted=counted
    )


@pytest.mark.parametrize(
    ("positions", "lost", "start", "end"),
    [
        ([*range(7), 19], 12, "0.24", "0.76"),
        ([0, *range(6, 20)], 5, "0.00", "0.24"),
        ([*range(5), *range(9, 20)], 4, "0.16", "0.36"),
        ([*range(5000), *range(5010, 20000)], 10, "199.96", "200.40"),
        ([*range(0, 60, 3), *range(90, 120, 3)], 10, "2.28", "3.60"),  # every third frame, and 10 of these lost
    ],
)
@pytest.mark.parametrize("ended", [True, False])
def test_hole(positions, lost, start, end, ended):
    sentence = f"The video has no frames between {start} s and {end} s, where about {lost} are to be expected: "
    assert remarks(positions, positions[-1] + 1, ended=ended) == [sentence + "it may be damaged."]


def test_holes_and_an_end_that_is_missing():
    hole, end = sorted(remarks([*range(20), *range(40, 60), *range(70, 80)], 120), reverse=True)
    assert "between 0.76 s and 1.60 s and in 1 more places, where about 30 " in hole
    assert end == "The video announces 120 frames and ends after 50: it may be cut off or damaged."


@pytest.mark.parametrize("announced", [100, 102])
def test_whole_video_with_times_in_milliseconds(announced):
    assert remarks(np.round(np.arange(100) / RATE, 3) * RATE, announced) == []


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.3])
@pytest.mark.parametrize("count", [100, 2000])
def test_varying_rate_is_no_alarm(keep, count):
    random = np.random.default_rng(0)
    positions = np.flatnonzero(random.random(count) < keep)
    positions = positions - positions[0]
    assert remarks(positions, positions[-1] + 1) == []
    jitter = np.cumsum(random.uniform(0.3, 3.0, count))
    assert remarks(jitter - jitter[0], round(jitter[-1])) == []


@pytest.mark.parametrize(("announced", "counted"), [(19, True), (20, True), (18, False), (20, False), (0, False)])
def test_a_counted_number_is_exact(announced, counted):
    found = remarks(range(18), announced, counted=counted)
    assert len(found) == (counted and announced > 18)


def test_dropped_frames_of_an_avi_are_in_its_count():
    assert remarks([*range(10), *range(30, 40)], 40, counted=True) == []


def test_a_video_without_times():
    assert remarks_on_lost_frames([0.0] * 20, 20, RATE, ended=True, counted=False) == []
    assert len(remarks_on_lost_frames([0.0] * 16, 20, RATE, ended=True, counted=False)) == 1
    assert remarks_on_lost_frames([0.0] * 16, 20, RATE, ended=False, counted=False) == []


@pytest.mark.parametrize(
    ("announced", "count", "seconds_per_frame", "alarms"),
    [
        (42, 40, 1 / 30, 0),  # its sound lasts a little longer
        (50, 40, 1 / 30, 1),
        (120, 40, 0.1, 0),  # 10 frames per second where up to 30 were announced
        (120, 20, 0.1, 1),
        (50, 40, 0.0, 1),  # it has no times
        (1000, 992, 1 / 30, 0),
        (-192153584101141, 40, 0.0, 0),  # it does not say
        (0, 40, 1 / 30, 0),
    ],
)
def test_an_estimated_number_of_frames_is_no_alarm(announced, count, seconds_per_frame, alarms):
    seconds = [index * seconds_per_frame for index in range(count)]
    assert len(remarks_on_lost_frames(seconds, announced, 30.0, ended=True, counted=False)) == alarms
