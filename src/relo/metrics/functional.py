"""Success, precision and their areas as pure functions of tensors: one code for reward, validation and benchmarks.

Every function takes any leading dimensions. Boxes are paired and in one unit (image pixels, or shares of a crop);
overlaps come from `relo.geometry`.
"""

from typing import Literal

import torch
from torch import Tensor

from relo.geometry import xywh_to_cxcywh

Integration = Literal["mean", "trapezoid"]


def success_thresholds() -> Tensor:
    """The 21 overlap thresholds 0, 0.05 .. 1 of the success curve (Wu et al., CVPR 2013), float64 [21]."""
    return torch.arange(21, dtype=torch.float64) / 20


def precision_thresholds() -> Tensor:
    """The 51 thresholds 0, 1 .. 50 px of the precision curve (Wu et al., CVPR 2013), float64 [51]."""
    return torch.arange(51, dtype=torch.float64)


def normalized_precision_thresholds() -> Tensor:
    """The 51 thresholds 0, 0.01 .. 0.5 of the normalized precision curve (TrackingNet, ECCV 2018), float64 [51]."""
    return torch.arange(51, dtype=torch.float64) / 100


def _share(hits: Tensor, mask: Tensor | None) -> Tensor:
    """The share [..., K], float64, of hits [..., N, K] among the frames that count [..., N]; 0 where none does."""
    if mask is None:
        return hits.sum(-2).double() / max(hits.shape[-2], 1)
    if mask.shape[-1] != hits.shape[-2]:  # a single flag would stand for all frames
        raise ValueError(f"{mask.shape[-1]} flags for {hits.shape[-2]} frames")
    return (hits & mask[..., None]).sum(-2).double() / mask.sum(-1, keepdim=True).clamp(min=1)


def success_rates(iou: Tensor, thresholds: Tensor, strict: bool = True, mask: Tensor | None = None) -> Tensor:
    """The success curve: the share of frames whose overlap exceeds each threshold.

    Args:
        iou: overlaps [..., N]; NaN and negative values are misses.
        thresholds: [K].
        strict: count `iou > threshold`; else `iou >= threshold`.
        mask: the frames that count, bool [..., N]; all by default.

    Returns:
        Shares [..., K]; 0 where no frame counts.

    Examples:
        >>> success_rates(torch.tensor([1.0, 0.5, 0.0, torch.nan]), torch.tensor([0.0, 0.5, 1.0]))
        tensor([0.5000, 0.2500, 0.0000])
    """
    thresholds = thresholds.to(iou)
    return _share(iou[..., None] > thresholds if strict else iou[..., None] >= thresholds, mask).to(iou.dtype)


def curve_area(curve: Tensor, integration: Integration = "mean") -> Tensor:
    """The area [...] under a curve [..., K] at evenly spaced thresholds, whose whole range counts as 1.

    "mean" is the mean of the K values, as benchmarks report it; "trapezoid" the trapezoidal rule, for the reward.

    Examples:
        >>> curve_area(torch.tensor([1.0, 1.0, 0.0])), curve_area(torch.tensor([1.0, 1.0, 0.0]), "trapezoid")
        (tensor(0.6667), tensor(0.7500))
    """
    if integration == "mean":
        return curve.mean(-1)
    return ((curve[..., 1:] + curve[..., :-1]) / 2).mean(-1)


def success_auc(
    iou: Tensor,
    *,
    thresholds: Tensor | None = None,
    integration: Integration = "mean",
    strict: bool = True,
    mask: Tensor | None = None,
) -> Tensor:
    """The area under the success curve of each clip.

    Args:
        iou: overlaps [..., N].
        thresholds: evenly spaced thresholds [K]; the 21 of `success_thresholds` by default.
        integration: as in `curve_area`. A perfect clip has 20/21 = 0.952 by "mean" and 0.975 by "trapezoid" (strict),
            as no overlap exceeds the threshold 1.
        strict: as in `success_rates`.
        mask: the frames that count, bool [..., N]; all by default.

    Returns:
        Areas [...]; 0 for a clip in which no frame counts.

    Examples:
        >>> iou = torch.tensor([[1.0, 1.0], [1.0, 0.0]])  # two clips of two frames
        >>> success_auc(iou)
        tensor([0.9524, 0.4762])
        >>> success_auc(iou, mask=torch.tensor([[True, True], [True, False]]))
        tensor([0.9524, 0.9524])
    """
    thresholds = success_thresholds() if thresholds is None else thresholds
    return curve_area(success_rates(iou, thresholds, strict, mask), integration)


def _center_offset(predicted_xywh: Tensor, truth_xywh: Tensor) -> Tensor:
    return xywh_to_cxcywh(predicted_xywh)[..., :2] - xywh_to_cxcywh(truth_xywh)[..., :2]


def center_error(predicted_xywh: Tensor, truth_xywh: Tensor) -> Tensor:
    """Distance [...] of the centres of boxes [..., 4], in their unit (pixels).

    Examples:
        >>> center_error(torch.tensor([3.0, 4, 10, 10]), torch.tensor([0.0, 0, 10, 10]))
        tensor(5.)
    """
    return _center_offset(predicted_xywh, truth_xywh).square().sum(-1).sqrt()


def normalized_center_error(predicted_xywh: Tensor, truth_xywh: Tensor) -> Tensor:
    """Distance [...] of the centres, x in truth widths and y in truth heights; NaN or infinite for an empty truth.

    Source: TrackingNet (Müller et al., ECCV 2018), section 4.

    Examples:
        >>> normalized_center_error(torch.tensor([3.0, 4, 10, 10]), torch.tensor([0.0, 0, 10, 10]))
        tensor(0.5000)
    """
    return (_center_offset(predicted_xywh, truth_xywh) / truth_xywh[..., 2:]).square().sum(-1).sqrt()


def precision_rates(errors: Tensor, thresholds: Tensor, mask: Tensor | None = None) -> Tensor:
    """The precision curve: the share [..., K] of frames, of errors [..., N], with `error <= threshold`; NaN is a miss.

    `mask`, bool [..., N], says which frames count; the share is 0 where none does.

    Examples:
        >>> precision_rates(torch.tensor([0.0, 20.0, 21.0, torch.nan]), torch.tensor([20.0]))
        tensor([0.5000])
    """
    return _share(errors[..., None] <= thresholds.to(errors), mask).to(errors.dtype)
