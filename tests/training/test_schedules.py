"""Learning-rate rules against straightforward re-computations."""

import math
from typing import Any

import numpy as np
import pytest

from keras_seq.training.schedules import make_schedule
from keras_seq.training.selection import (
    as_losses,
    best_epoch,
    monitored,
    should_stop,
)
from keras_seq.zoo import ScheduleSpec


def follow(spec, losses, rate=1.0):
    """The rate of each epoch, the first one included."""
    schedule = make_schedule(spec, rate, steps=100)
    rates = [float(schedule.optimizer_rate())]
    for epoch in range(1, len(losses) + 1):
        rates.append(schedule.next_rate(epoch, rates[-1], losses[:epoch]))
    return rates


def test_constant():
    assert follow(ScheduleSpec("constant"), [3.0, 4.0, 5.0]) == [1.0] * 4


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_plateau_follows_the_released_loop(patience):
    losses = list(np.random.default_rng(patience).normal(size=30) * 0.3 - np.arange(30) * 0.02)
    rate, past, expected = 20.0, [], [20.0]
    for loss in losses:  # the rule in the words of its definition
        window = past[: len(past) - patience]
        if len(past) > patience and loss > min(window):
            rate /= 4
        past.append(loss)
        expected.append(rate)
    spec = ScheduleSpec("plateau", factor=0.25, patience=patience)
    np.testing.assert_allclose(follow(spec, losses, 20.0), expected, rtol=1e-12)


def test_plateau_by_hand():
    losses = [5.0, 4.0, 3.0, 3.5, 3.6, 3.7, 2.0]
    #  epoch 4: 3.5 > min(5) no; 5: 3.6 > min(5, 4) no; 6: 3.7 > min(5, 4, 3) yes; 7: 2.0 no
    rates = follow(ScheduleSpec("plateau", factor=0.5, patience=2), losses)
    assert rates == [1, 1, 1, 1, 1, 1, 0.5, 0.5]


def test_plateau_has_a_floor_and_counts_nan_as_worst():
    spec = ScheduleSpec("plateau", factor=0.1, patience=0, minimum=0.05)
    assert follow(spec, [1.0, math.nan, 2.0]) == pytest.approx([1.0, 1.0, 0.1, 0.05])
    low = make_schedule(spec, 0.01, 10)  # a rate below the floor is not raised
    assert low.next_rate(2, 0.01, [1.0, 2.0]) == 0.01


def test_highest_by_hand():
    losses = [5.0, 6.0, 4.0, 4.5, 4.2, 4.4, math.nan, 3.0]
    #  epoch 2 is before the delay ends; 4: 4.5 < max(6, 4); 5: 4.2 < max(4, 4.5);
    #  6: 4.4 < max(4.5, 4.2); 7: not a number; 8: 3 < not a number
    spec = ScheduleSpec("highest", factor=0.5, patience=2, delay=2)
    assert follow(spec, losses) == [1, 1, 1, 1, 1, 1, 1, 0.5, 0.5]
    at_once = ScheduleSpec("highest", factor=0.5, patience=2)
    assert follow(at_once, losses) == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    with pytest.raises(ValueError, match="`schedule.patience` must be positive"):
        follow(ScheduleSpec("highest", patience=0), losses)


def test_milestones_take_effect_at_the_start_of_their_epochs():
    spec = ScheduleSpec("milestones", factor=0.1, milestones=(2, 4))
    assert follow(spec, [1.0] * 4) == pytest.approx([1.0, 0.1, 0.1, 0.01, 0.01])
    first = ScheduleSpec("milestones", factor=0.5, milestones=(1,))
    assert follow(first, [1.0]) == [0.5, 0.5]


def test_cosine_with_warmup():
    spec = ScheduleSpec("cosine", minimum=0.1, warmup=0.2)
    schedule: Any = make_schedule(spec, 2.0, steps=50).optimizer_rate()
    rates = [float(schedule(step)) for step in range(51)]
    assert 0 < rates[0] < rates[5] < rates[9] < rates[10] == pytest.approx(2.0)
    assert rates[30] == pytest.approx((2.0 + 0.1) / 2)
    assert rates[50] == pytest.approx(0.1)
    plain: Any = make_schedule(ScheduleSpec("cosine"), 2.0, steps=50).optimizer_rate()
    assert float(plain(0)) == pytest.approx(2.0)
    assert float(plain(25)) == pytest.approx(1.0)


def test_unknown_schedule():
    spec = ScheduleSpec("constant")
    object.__setattr__(spec, "name", "sawtooth")
    with pytest.raises(ValueError, match="'cosine', 'highest', 'milestones', 'plateau'"):
        make_schedule(spec, 1.0, 1)


def test_best_epoch_is_the_first_of_equals_and_never_nan():
    assert best_epoch([]) is None
    assert best_epoch([math.nan, math.inf]) is None
    assert best_epoch([math.nan, 3.0, 2.0, 2.0, 5.0]) == 3


def test_early_stopping():
    losses = [3.0, 2.0, 2.5, 2.0, 1.9, 2.0, 2.0]
    stops = [should_stop(losses[:n], 2) for n in range(1, 8)]
    assert stops == [False, False, False, True, False, False, True]
    assert not should_stop(losses, None)
    assert should_stop([math.nan, math.nan], 2)


def test_monitor():
    assert as_losses([0.5, 0.7], "val_accuracy") == [-0.5, -0.7]
    assert monitored({"val_nll": 2.0, "nll": 1.0}, "val_nll") == 2.0
    assert monitored({"nll": 1.0}, "val_nll") == 1.0
    with pytest.raises(ValueError, match="`monitor` must be one of: loss, nll"):
        monitored({"nll": 1.0, "loss": 2.0}, "val_bleu")
