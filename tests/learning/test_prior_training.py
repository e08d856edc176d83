import copy

import pytest
import torch

from relo.errors import UserError
from relo.learning.prior_training import PriorObjective
from relo.learning.priors import BinaryPrior, CornerExpectation, GaussianPrior, Prior
from relo.learning.warmup import WarmupObjective
from relo.models.heads import ConvPrior, CornerPrior, PriorHead
from relo.models.network import LocalizationNetwork
from relo.training.module import RELOModule
from small_networks import make_clip, make_network

PRIORS = [(GaussianPrior(), ConvPrior), (BinaryPrior(), ConvPrior), (CornerExpectation(), CornerPrior)]
EVERY_PRIOR = pytest.mark.parametrize(("prior", "head"), PRIORS, ids=[type(prior).__name__ for prior, _ in PRIORS])


def network_with(head: type[PriorHead] | None) -> LocalizationNetwork:
    made = make_network()
    prior = None if head is None else head(channels=16, hidden=(8, 8))
    return LocalizationNetwork(made.encoder, made.propagator, made.policy, made.box, made.critic, prior)


def learn(module: RELOModule, steps: int) -> tuple[dict[str, float], dict[str, float]]:
    """Train on one batch; what was logged of the first and of the last step."""
    clip, generator = make_clip(), torch.Generator()
    optimizer = module.configure_optimizers()
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    module.train()
    logs = []
    for _ in range(steps):
        optimizer.zero_grad()
        result = module.objective(module.network, clip, generator)
        result.loss.backward()
        optimizer.step()
        logs.append({name: value.item() for name, value in result.logs.items()})
    return logs[0], logs[-1]


@EVERY_PRIOR
def test_every_prior_learns_on_a_frozen_network(prior: Prior, head: type[PriorHead]) -> None:
    network = network_with(head)
    before = copy.deepcopy(network.state_dict())
    steps = 320 if head is CornerPrior else 80  # two expectations over a map take longer to become a box
    first, last = learn(RELOModule(network, PriorObjective(prior, prior_weight=0.5)), steps)
    assert last["prior_loss"] < 0.5 * first["prior_loss"]
    for name, tensor in network.state_dict().items():
        if not name.startswith("prior."):
            assert torch.equal(tensor, before[name]), name
    if head is CornerPrior:  # the boxes learn with it; elsewhere they are the frozen box head's
        assert last["iou"] > 0.7 > first["iou"]
    assert first["loss"] == pytest.approx(0.5 * first["prior_loss"])


@EVERY_PRIOR
def test_every_prior_learns_in_the_warmup(prior: Prior, head: type[PriorHead]) -> None:
    objective = WarmupObjective(prior=prior, box_cell="prior")
    first, last = learn(RELOModule(network_with(head), objective), steps=30)
    assert last["prior_loss"] < 0.5 * first["prior_loss"]
    assert last["iou"] > first["iou"]


@EVERY_PRIOR
def test_only_the_priors_head_gets_gradients_and_all_of_it_does(prior: Prior, head: type[PriorHead]) -> None:
    network = network_with(head)
    module = RELOModule(network, PriorObjective(prior))
    network.critic.forward = lambda features: pytest.fail("ran")
    module.objective(network, make_clip(), torch.Generator()).loss.backward()
    with_gradient = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert with_gradient == {f"prior.{name}" for name, _ in network.prior.named_parameters()}


def test_the_iou_is_that_of_the_boxes_by_which_the_prior_localizes() -> None:
    network = network_with(ConvPrior).eval()
    clip = make_clip(batch=3)
    clip.present[1, 0] = False
    logged = PriorObjective(GaussianPrior())(network, clip, torch.Generator()).logs["iou"].item()
    templates, memory, means = network.encode_templates(clip.template_images, clip.template_boxes_xywh), None, []
    for t in range(2):
        maps, memory = network(clip.search_images[:, t], templates, memory)
        ious = []
        for i in range(3):
            cell = int(maps.prior_scores[i].argmax())
            cx, cy, w, h = maps.boxes_cxcywh[i].flatten(0, 1)[cell].tolist()
            x, y, truth_w, truth_h = clip.search_boxes_xywh[i, t].tolist()
            inner = max(min(cx + w / 2, x + truth_w) - max(cx - w / 2, x), 0)
            inner *= max(min(cy + h / 2, y + truth_h) - max(cy - h / 2, y), 0)
            if clip.present[i, t]:
                ious.append(inner / (w * h + truth_w * truth_h - inner))
        means.append(sum(ious) / len(ious))
    assert logged == pytest.approx(sum(means) / 2, abs=1e-5)


def test_a_head_that_does_not_fit_the_prior_is_a_clear_error() -> None:
    for prior, head in ((CornerExpectation(), ConvPrior), (GaussianPrior(), CornerPrior), (GaussianPrior(), None)):
        for objective in (PriorObjective(prior), WarmupObjective(prior=prior)):
            with pytest.raises(UserError, match="needs a prior head"):
                objective(network_with(head), make_clip(), torch.Generator())


def test_a_network_without_prior_is_refused_before_it_trains() -> None:
    with pytest.raises(UserError, match="no part 'prior'"):
        RELOModule(network_with(None), PriorObjective(GaussianPrior()), localizations=["policy"])


def test_the_box_head_learns_along_where_asked() -> None:
    network = network_with(ConvPrior)
    before = copy.deepcopy(network.state_dict())
    objective = PriorObjective(GaussianPrior(), box_weight=1.0)
    first, last = learn(RELOModule(network, objective), steps=40)
    assert last["giou_loss"] < first["giou_loss"]
    assert last["iou"] > first["iou"]
    changed = {name.partition(".")[0] for name, t in network.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"prior", "box"}
