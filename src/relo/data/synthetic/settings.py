"""How hard synthetic sequences are."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class SceneSettings:
    """How hard sequences are. Ranges are (lowest, highest), drawn once per sequence.

    Attributes:
        target_size: sqrt(width x height) of the target, as a share of sqrt(image area).
        speed: of target and moving things, in shares of the image width per frame.
        scale_change, aspect_change: natural logarithm of the largest factor by which size and aspect leave their mean.
        rotation: largest turn to either side, in radians.
        appearance_change: up to this share of a second texture fades over the target's own.
        light_change: natural logarithm of the largest factor of brightness; contrast and colour follow.
        blur: probability, for every 60 frames, of a spell out of focus.
        motion_blur: exposure, as a share of the time between frames.
        noise: standard deviation of the sensor noise, in grey levels.
        camera_motion: reach of the camera's path, as a share of the image size.
        shake: probability that the camera is held by an unsteady hand.
        clutter: number of things on the background.
        camouflage: probability that the background has the target's colours.
        distractors: number of moving things behind the target, (fewest, most).
        look_alike: share of the distractors that have the target's shape and colours.
        occlusions: things that pass before the target, for every 60 frames on average.
        full_occlusion: share of these that hide it wholly.
        out_of_view: probability, for every 60 frames, that the target leaves the image and comes back.
    """

    target_size: tuple[float, float] = (0.11, 0.24)
    speed: tuple[float, float] = (0.004, 0.022)
    scale_change: float = 0.45
    aspect_change: float = 0.3
    rotation: float = 0.9
    appearance_change: float = 0.5
    light_change: float = 0.3
    blur: float = 0.3
    motion_blur: float = 0.4
    noise: float = 3.0
    camera_motion: float = 0.15
    shake: float = 0.25
    clutter: int = 60
    camouflage: float = 0.3
    distractors: tuple[int, int] = (1, 4)
    look_alike: float = 0.5
    occlusions: float = 0.8
    full_occlusion: float = 0.35
    out_of_view: float = 0.04


EASY = SceneSettings(
    camouflage=0.0, distractors=(0, 1), look_alike=0.0, occlusions=0.0, out_of_view=0.0, appearance_change=0.2, blur=0.0
)
"""Nothing hides the target or looks like it."""

HARD = replace(
    SceneSettings(),
    speed=(0.018, 0.035),
    scale_change=0.7,
    aspect_change=0.5,
    rotation=1.6,
    appearance_change=0.9,
    light_change=0.6,
    camouflage=0.6,
    distractors=(4, 8),
    look_alike=0.8,
    occlusions=1.6,
    full_occlusion=0.6,
    out_of_view=0.15,
)
"""More of everything: motion and appearance leave the range of the default settings."""

DISTRACTORS = replace(SceneSettings(), distractors=(5, 9), look_alike=1.0, camouflage=0.0)
"""A crowd of moving things that all look like the target."""

OCCLUDED = replace(SceneSettings(), occlusions=2.4, full_occlusion=0.6, out_of_view=0.3)
"""The target is often hidden, wholly for a while, and sometimes leaves the image."""

CHANGED = replace(
    SceneSettings(),
    speed=(0.022, 0.035),
    scale_change=0.8,
    aspect_change=0.6,
    rotation=2.0,
    appearance_change=1.0,
    light_change=0.6,
)
"""Motion and appearance leave the range of the default settings; nothing else is harder than there."""


@dataclass(frozen=True)
class PhotographicSettings:
    """What scenes of photographs have beyond `SceneSettings`.

    Attributes:
        parts: share of the targets that are a part of a larger thing, most without an edge of their own.
        shapes: share of the targets and distractors that are shapes filled from photographs.
        deformed: share of the things that ripple, that swing parts and that turn in depth, each.
        ripple: the largest displacement of a ripple, as a share of the thing's size.
        swing: the largest angle of parts that swing, in radians.
        turn: the largest angle of turning in depth, in radians.
        standing: the most cut-outs that stand still on the background.
        zooming: share of the sequences in which the camera zooms.
        zoom: natural logarithm of the largest factor of the camera's zoom.
        grey: share of the sequences without colours.
        dark: share that is dark, and noisy for it.
        coarse: share of a lower resolution.
        noisy: share with strong noise.
        compressed: share that is heavily compressed.
    """

    parts: float = 0.2
    shapes: float = 0.15
    deformed: float = 0.6
    ripple: float = 0.09
    swing: float = 0.4
    turn: float = 0.9
    standing: int = 4
    zooming: float = 0.25
    zoom: float = 0.5
    grey: float = 0.07
    dark: float = 0.1
    coarse: float = 0.15
    noisy: float = 0.12
    compressed: float = 0.25

    def faults(self) -> dict[str, float]:
        """The probability of each of a camera's faults."""
        return {name: getattr(self, name) for name in ("grey", "dark", "coarse", "noisy", "compressed")}


def photographic(settings: SceneSettings) -> SceneSettings:
    """The same difficulty with targets of more sizes, as photographs can have."""
    return replace(settings, target_size=(0.05, 0.5), clutter=0)
