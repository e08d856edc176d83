"""The names that people import: they stay where they are."""

import relo
import relo.weights
from relo.models.checkpoints import weights
from relo.tracking.tracker import Tracker


def test_public_names_are_where_people_import_them():
    assert relo.Tracker is Tracker
    assert relo.weights.load_network is weights.load_network
    assert relo.weights.import_released is weights.import_released
