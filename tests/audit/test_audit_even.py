"""Where nothing is found and classes are unequal, an audit says what evenly weighted classes give and cost."""

import json

import numpy as np
import pytest

from aifs_peft import audit


def latents(share):
    rng = np.random.default_rng(0)
    y = (rng.random(1500) < share).astype(int)
    Z = rng.normal(size=(1500, 6))
    Z[:, 0] += 2 * y
    return Z, y


def test_an_audit_of_unequal_classes_tells_gain_and_cost():
    found = audit(*latents(0.1), random_state=0)
    assert not found.found
    told = found.to_dict()["looked_at"]["even_classes"]
    assert told["worst"] > told["plain_worst"] + 0.15
    assert told["average"] < told["plain_average"]
    words = f"the worst class is right for {told['worst']:.1%} instead of {told['plain_worst']:.1%}, all examples for"
    for text in (found.sentence, " ".join(repr(found).split()), found._repr_html_(), json.dumps(found.to_dict())):
        assert words in text


@pytest.mark.parametrize(("share", "harm"), [(0.5, True), (0.1, False)])
def test_equal_classes_or_an_audit_that_trains_nothing_tell_nothing(share, harm):
    found = audit(*latents(share), random_state=0, harm=harm)
    assert not found.found
    assert "even_classes" not in found.looked_at
    assert "evenly" not in found.sentence
