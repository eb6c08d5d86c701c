"""Audits of latents that are read in blocks: memory maps, columns of Arrow, more rows than are held."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from planted_audit import planted

from aifs_peft import audit, discover
from aifs_peft.audit.coordinates import Coordinates
from aifs_peft.audit.even import even_classes
from aifs_peft.audit.names import contrasts
from aifs_peft.audit.power import class_contrast
from aifs_peft.audit.projection import axes
from aifs_peft.discovery import DiscoveryConfig, LatentBatches
from aifs_peft.discovery.config import DEFAULT_CONFIG, InputConfig
from aifs_peft.discovery.streaming.processes import Processes
from aifs_peft.discovery.streaming.reading import as_source
from aifs_peft.errors import InvalidInputError

FEW = DiscoveryConfig(inputs=InputConfig(held_rows=2000))


@pytest.fixture(scope="module")
def latents():
    Z, y, mark = planted(n=20_000, width=40)
    return Z.astype(np.float32), y, mark


def both(Z, y, classes=2):
    """Coordinates that are held, and the same read in blocks."""
    made = [Coordinates.of(as_source(Z), y, classes, rng=np.random.default_rng(0), config=c)
            for c in (DEFAULT_CONFIG, FEW)]  # fmt: skip
    assert made[0].held is not None
    assert made[1].held is None
    return made


@pytest.mark.parametrize("aligned", [0.95, 0.5], ids=["found", "nothing"])
def test_axes_and_contrast_are_the_same_in_blocks(latents, aligned):
    Z, y, _ = planted(n=20_000, width=40, aligned=aligned) if aligned == 0.5 else latents
    found = discover(Z, y, random_state=0)
    assert found.found == (aligned == 0.95)
    held, streamed = both(Z, y)
    assert np.allclose(axes(streamed, found), axes(held, found), atol=1e-6)
    assert class_contrast(streamed) == pytest.approx(class_contrast(held), abs=1e-6)


def test_words_are_compared_the_same_in_blocks(latents):
    Z, y, mark = latents
    W = np.eye(40)[:12] + 0.3
    held, streamed = contrasts(Z, y, mark, W), contrasts(as_source(Z), y, mark, W)
    for one, other in zip(held, streamed, strict=True):
        assert np.allclose(one, other, rtol=1e-6, atol=1e-6)


def test_even_classes_are_measured_on_a_sample(latents):
    Z, y, _ = latents
    keep = (y == 0) | (np.arange(len(y)) % 6 == 0)
    weak = Z[keep] * np.where(np.arange(40) < 2, 0.4, 1.0)
    for coordinates in both(weak.astype(np.float32), y[keep]):
        even = even_classes(coordinates, rng=np.random.default_rng(0))
        assert even is not None
        assert even.worst > even.plain_worst


def test_blocks_are_all_that_is_held(latents):
    Z, y, _ = latents
    wide = np.tile(Z, (2, 3))
    labels = np.tile(y, 2)
    found = discover(wide, labels, random_state=0)
    streamed = both(wide, labels)[1]
    tracemalloc.start()
    axes(streamed, found)
    class_contrast(streamed)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Blocks of 8,192 rows in single and double precision, beside some numbers per example.
    assert peak < 4 * 8192 * streamed.width * 8 + 200 * len(labels)


@pytest.mark.parametrize("kind", ["memory map", "column", "arrow", "batches"])
def test_latents_in_a_file_are_audited_as_those_in_memory(latents, kind, tmp_path):
    Z, y, mark = (values[:3000] for values in latents)
    if kind == "memory map":
        np.save(tmp_path / "Z.npy", Z)
        given, labels = np.load(tmp_path / "Z.npy", mmap_mode="r"), y
    elif kind == "column":
        rows = Dataset.from_dict({"latents": Z, "label": y})
        given, labels = rows["latents"], rows["label"]
    elif kind == "arrow":
        given, labels = pa.chunked_array([pa.array(list(Z[:1000])), pa.array(list(Z[1000:]))]), y
    else:
        given = LatentBatches(lambda: ((Z[i : i + 700], y[i : i + 700]) for i in range(0, 3000, 700)))
        labels = given.labels
    here, there = audit(Z, y, metadata={"mark": mark}), audit(given, labels, metadata={"mark": mark})
    assert there.found
    assert there.to_dict() == here.to_dict()
    assert there.conflicting.equals(here.conflicting)


def test_more_rows_than_are_held(tmp_path):
    """The whole audit with blocks: what it says, from a file of half precision, without a copy of it."""
    n, width = DEFAULT_CONFIG.inputs.held_rows + 3000, 10
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, n)
    mark = np.where(rng.random(n) < 0.95, y, 1 - y)
    Z = rng.standard_normal((n, width), dtype=np.float32)
    Z[:, 0] += 6.0 * mark
    Z[:, 1] += 2.0 * y
    np.save(tmp_path / "Z.npy", Z.astype(np.float16))
    found = audit(np.load(tmp_path / "Z.npy", mmap_mode="r"), y, metadata={"mark": mark}, predictions=mark)
    assert found.found
    assert np.mean(found.discovery.groups_ == mark) > 0.99
    assert found.associations.strength[0] > 0.95
    assert found.harm.leans
    assert found.model_harm.conflicting.accuracy < 0.1
    assert found.looked_at["class_contrast"] > 1.5
    attribute = found.projection.attribute_axis
    assert abs(np.corrcoef(attribute, mark[found.projection.row])[0, 1]) > 0.9


def test_values_that_are_not_finite_are_told_with_a_discovery_too(latents):
    Z, y, _ = (values[:3000] for values in latents)
    found = discover(Z, y, random_state=0)
    Z = Z.copy()
    Z[5, 3] = np.nan
    with pytest.raises(InvalidInputError, match="1 of 3000 rows of Z hold NaN"):
        audit(Z, y, discovery=found)


def test_latents_of_several_processes_are_refused_by_name(latents):
    Z, y, _ = (values[:100] for values in latents)
    source = as_source(Z)
    source.processes = Processes(count=2)
    with pytest.raises(InvalidInputError, match="2 processes"):
        audit(source, y)
