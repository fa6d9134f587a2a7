"""Charge of bright stars that moves to the neighbours: the groups that lose it are flagged."""

import numpy as np

from calibration import dq
from calibration.ramps.charge_migration import flag_charge_migration

DO_NOT_USE = dq.GROUP["DO_NOT_USE"]
LOST = dq.GROUP["CHARGELOSS"] | DO_NOT_USE


def test_charge_is_lost_from_the_threshold_on_and_at_four_neighbours():
    data = np.zeros((1, 4, 3, 3), np.float32)
    data[0, 2:, 1, 1] = 30_000
    flagged = flag_charge_migration(data, np.zeros(data.shape, np.uint8), 25_000)
    assert not flagged[0, :2].any()
    for g in (2, 3):
        assert flagged[0, g].tolist() == [[0, LOST, 0], [LOST, LOST, LOST], [0, LOST, 0]]


def test_a_group_that_is_not_used_tells_nothing_of_lost_charge():
    data = np.full((1, 1, 1, 1), 30_000, np.float32)
    groupdq = np.full(data.shape, DO_NOT_USE, np.uint8)
    assert flag_charge_migration(data, groupdq, 25_000).item() == DO_NOT_USE
