"""JTT: the error set, its weights, and what becomes of a planted shortcut."""

import logging

import pytest
import torch
from shortcut_latents import fit, planted, worst_group

from aifs_peft.errors import InvalidConfigError
from aifs_peft.methods.common.reference_head import train_reference
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents

TEST = planted(2000, 0.5, seed=9)
SHORT = LatentSchedule(epochs=2)


def test_weights_are_lambda_up_on_the_errors_of_the_reference_and_one_elsewhere():
    z, y, groups = planted(500)
    options = {"lambda_up": 7.0, "epochs": 3, "learning_rate": 5e-3, "batch_size": 50, "weight_decay": 0.1}
    fitted = fit("jtt", (z, y, groups), options=options, schedule=SHORT, seed=4)
    reference = train_reference(z, y, 2, epochs=3, learning_rate=5e-3, batch_size=50, weight_decay=0.1, seed=4)
    wrong = reference(z).argmax(1) != y
    assert 0.0 < wrong.float().mean() < 0.5
    assert torch.equal(fitted.state.weights, torch.where(wrong, 7.0, 1.0).double())
    assert fitted.history[0]["error_set_share"] == pytest.approx(float(wrong.float().mean()))


def test_without_upsampling_it_is_erm():
    data = planted(300)
    erm, jtt = fit("erm", data, schedule=SHORT), fit("jtt", data, options={"lambda_up": 1.0}, schedule=SHORT)
    assert torch.equal(erm.head.weight, jtt.head.weight)
    assert torch.equal(erm.head.bias, jtt.head.bias)


def test_a_reference_that_errs_nowhere_leaves_erm_and_says_so(caplog):
    data = planted(300, aligned=1.0, core=8.0)
    with caplog.at_level(logging.WARNING):
        jtt = fit("jtt", data, options={"epochs": 100, "learning_rate": 0.05}, schedule=SHORT)
    assert "the reference makes no mistake" in caplog.text
    assert jtt.history[0]["error_set_share"] == 0.0
    assert torch.equal(jtt.head.weight, fit("erm", data, schedule=SHORT).head.weight)


def test_it_takes_much_of_the_shortcut_away_without_groups():
    z, y, _ = data = planted()
    erm = worst_group(fit("erm", data).head, *TEST)
    jtt = fit_on_latents("jtt", z, y, num_labels=2, schedule=LatentSchedule(epochs=20, learning_rate=0.01))
    assert erm < 0.65
    assert worst_group(jtt.head, *TEST) > erm + 0.1
    conflicting = data[2] % 2 != y
    drawn = jtt.state.weights[conflicting].sum() / jtt.state.weights.sum()
    assert drawn > 4 * conflicting.float().mean()


def test_it_repeats_itself_and_follows_the_seed():
    first, again, other = (fit("jtt", planted(200), schedule=SHORT, seed=s) for s in (0, 0, 1))
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize(
    "options",
    [{"lambda_up": 0.5}, {"epochs": 0}, {"learning_rate": 0.0}, {"batch_size": 0}, {"weight_decay": -1.0}],
)
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(InvalidConfigError, match=next(iter(options))):
        fit("jtt", planted(50), options=options)
