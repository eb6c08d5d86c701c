"""The reader of the attribute: right without labels, sure of itself to the right degree, silent where it must be."""

import numpy as np
import pytest
import torch
from planted import planted

from aifs_peft.errors import InvalidInputError
from aifs_peft.explain import attribute_scores, fit_reader, read_attribute

BETA_DIM = 16


def offsets(z, y, a):
    """Displacements of the planted attribute, by the means of its values within the classes."""
    within = [z[(y == k) & (a == 1)].mean(0) - z[(y == k) & (a == 0)].mean(0) for k in (0, 1)]
    step = torch.stack(within).mean(0)
    return torch.stack([-step / 2, step / 2])


@pytest.mark.parametrize(("n", "dim", "shortcut"), [(540, 64, 4.0), (2000, 16, 2.5)])
def test_values_of_new_examples_are_read_without_labels(n: int, dim: int, shortcut: float) -> None:
    z, y, a = planted(n=n, dim=dim, shortcut=shortcut)
    _, reader = fit_reader(z, y, a, offsets(z, y, a))
    new, _, truth = planted(n=4000, dim=dim, shortcut=shortcut, seed=1, agreement=0.5)
    p = read_attribute(new, reader)
    right = p.argmax(1) == truth
    assert float(right.float().mean()) > 0.97
    # As sure as it is right: on new examples, not on those it was fitted on.
    assert abs(float(p.max(1).values.mean()) - float(right.float().mean())) < 0.03


def test_what_is_weak_is_read_with_doubt() -> None:
    z, y, a = planted(n=1000, shortcut=0.8)
    _, reader = fit_reader(z, y, a, offsets(z, y, a))
    new, _, truth = planted(n=4000, shortcut=0.8, seed=1, agreement=0.5)
    p = read_attribute(new, reader)
    right = float((p.argmax(1) == truth).float().mean())
    assert right < 0.9
    assert abs(float(p.max(1).values.mean()) - right) < 0.06


def test_the_class_does_not_pass_for_the_attribute() -> None:
    z, y, a = planted(n=2000, core=4.0, shortcut=3.0)
    _, reader = fit_reader(z, y, a, offsets(z, y, a))
    new, label, truth = planted(n=4000, core=4.0, shortcut=3.0, seed=1, agreement=0.5)
    read = read_attribute(new, reader).argmax(1)
    against = label != truth
    assert float((read[against] == truth[against]).float().mean()) > 0.97


def test_the_centre_is_that_of_all_cells_alike() -> None:
    z, y, a = planted(n=4000, agreement=0.9)
    centre, _ = fit_reader(z, y, a, offsets(z, y, a))
    cells = torch.stack([z[(y == k) & (a == v)].mean(0) for k in (0, 1) for v in (0, 1)])
    assert float((centre - cells.mean(0)).abs().max()) < 0.1


def test_a_value_that_nobody_has_is_never_read() -> None:
    z, y, a = planted(n=600)
    beta = torch.cat([offsets(z, y, a), torch.full((1, 16), 100.0)])
    _, reader = fit_reader(z, y, a, beta)
    assert set(read_attribute(100 * torch.randn(50, 16), reader).argmax(1).tolist()) <= {0, 1}


def test_one_value_alone_cannot_be_read() -> None:
    z, y, _ = planted(n=60)
    _, reader = fit_reader(z, y, torch.zeros_like(y), torch.zeros(2, 16))
    assert reader.shape == (0, 17)
    with pytest.raises(InvalidInputError, match=r"need a reader of shape \(values, 17\), got \(0, 17\)"):
        attribute_scores(z, reader)
    with pytest.raises(InvalidInputError, match="one row per example, got 60, 59 and 60"):
        fit_reader(z, y[1:], y, torch.zeros(2, 16))


def test_a_large_set_is_read_by_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from aifs_peft.explain import reading

    monkeypatch.setattr(reading, "MOST_ROWS", 500)
    z, y, a = planted(n=3000)
    (c1, r1), (c2, r2) = (fit_reader(z, y, a, offsets(z, y, a)) for _ in range(2))
    assert torch.equal(c1, c2)
    assert torch.equal(r1, r2)
    new, _, truth = planted(n=1000, seed=1, agreement=0.5)
    assert np.mean((read_attribute(new, r1).argmax(1) == truth).numpy()) > 0.97
