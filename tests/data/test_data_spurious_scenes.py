"""SpuriousScenes: exact shares, planted factors, scenes that are pure functions of their row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aifs_peft.data import group_spec, load
from aifs_peft.data.spurious_scenes import WORLDS, SceneConfig, counterfactual, render, scene_config
from aifs_peft.data.spurious_scenes.drawing import hashed, smooth_field, uniform
from aifs_peft.errors import InvalidInputError

TINY = {"n_train": 60, "n_validation": 20, "n_test": 40, "image_size": 16}


def _column(part, name):
    return np.asarray(part[name][:])


def _images(part):
    return np.stack([np.asarray(image) for image in part["image"]])


def _scenes(world, n=64, size=32, core_strength=1.0, shortcut_strength=1.0, first=0):
    config = SceneConfig(world, size, core_strength, shortcut_strength)
    seeds = np.arange(first, first + n)
    return config, seeds % 2, np.stack([(seeds // 2) % 2, (seeds // 4) % 2], axis=1), seeds


@settings(max_examples=10, deadline=None)
@given(
    world=st.sampled_from(sorted(WORLDS)),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
    test=st.floats(0, 1),
    noise=st.floats(0, 0.5),
    seed=st.integers(0, 3),
)
def test_requested_shares_and_noise_equal_the_measured_ones(world, shares, test, noise, seed):
    names = [s.name for s in WORLDS[world].shortcuts]
    aligned = dict(zip(names, shares, strict=True))
    options = {"aligned": aligned, "aligned_test": test, "label_noise": noise, "seed": seed}
    data = load("spurious_scenes", world=world, shortcuts=names, **options, **TINY)
    for split, part in data.items():
        label = _column(part, "label")
        tolerance = 0.5 / len(part) + 1e-9
        assert abs((label != _column(part, "clean_label")).mean() - noise) <= tolerance
        assert abs(_column(part, "clean_label").mean() - 0.5) <= tolerance
        for name in names:
            wanted = test if split == "test" else aligned[name]
            assert abs((_column(part, f"factor_{name}") == label).mean() - wanted) <= tolerance


@pytest.mark.parametrize("world", sorted(WORLDS))
def test_every_row_carries_its_factors_and_groups(world):
    data = load("spurious_scenes", world=world, **TINY)
    first, _, hidden = WORLDS[world].shortcuts
    spec = group_spec(data)
    train = data["train"]
    factor = _column(train, f"factor_{first.name}")
    assert np.array_equal(_column(train, "group"), 2 * _column(train, "label") + factor)
    assert np.array_equal(_column(train, "attribute"), factor)
    assert spec.attributes == first.values
    row = train[0]
    assert row[hidden.name] == hidden.values[row[f"factor_{hidden.name}"]]
    assert row["features"][:2] == [1.0 - row[f"factor_{hidden.name}"], float(row[f"factor_{hidden.name}"])]
    field, low, high = WORLDS[world].numeric
    assert row[field] == pytest.approx(low + (high - low) * row["features"][2], rel=1e-5)


def test_factors_that_are_not_active_are_independent_of_the_label():
    data = load("spurious_scenes", shortcuts=("site",), aligned=0.9, **TINY)
    train = data["train"]
    label = _column(train, "label")
    assert (_column(train, "factor_site") == label).mean() == pytest.approx(0.9)
    for name in ("scanner_mark", "position"):
        assert (_column(train, f"factor_{name}") == label).mean() == pytest.approx(0.5)
    assert group_spec(data).attributes == ("site A", "site B")
    null = load("spurious_scenes", shortcuts=(), **TINY)["train"]
    assert (_column(null, "factor_scanner_mark") == _column(null, "label")).mean() == pytest.approx(0.5)


def test_groups_of_two_factors():
    data = load(
        "spurious_scenes", shortcuts=("scanner_mark", "position"), group_by=("scanner_mark", "position"), **TINY
    )
    spec, train = group_spec(data), data["train"]
    assert spec.num_groups == 8
    assert spec.attributes[1] == "ring mark, tilted right"
    wanted = 4 * _column(train, "label") + 2 * _column(train, "factor_scanner_mark") + _column(train, "factor_position")
    assert np.array_equal(_column(train, "group"), wanted)


def test_metadata_only_shortcut_leaves_the_image_alone():
    plain = load("spurious_scenes", shortcuts=(), seed=3, **TINY)["train"]
    tied = load("spurious_scenes", shortcuts=("site",), aligned=1.0, seed=3, **TINY)["train"]
    config, core, visible, seeds = _scenes("clinic")
    assert not np.array_equal(_column(plain, "factor_site"), _column(tied, "factor_site"))
    assert [s.name for s in WORLDS["clinic"].visible] == ["scanner_mark", "position"]
    assert render(config, core, visible, seeds).shape == (64, 32, 32, 3)


@pytest.mark.parametrize("world", sorted(WORLDS))
def test_a_scene_does_not_depend_on_its_batch(world):
    config, core, visible, seeds = _scenes(world, n=40)
    whole = render(config, core, visible, seeds)
    order = np.random.default_rng(0).permutation(40)
    assert np.array_equal(render(config, core[order], visible[order], seeds[order]), whole[order])
    assert np.array_equal(render(config, core[7:8], visible[7:8], seeds[7:8])[0], whole[7])


@pytest.mark.parametrize("world", sorted(WORLDS))
def test_strength_zero_removes_core_and_shortcuts(world):
    config, core, visible, seeds = _scenes(world, core_strength=0.0, shortcut_strength=1.0)
    assert np.array_equal(render(config, core, visible, seeds), render(config, 1 - core, visible, seeds))
    config, core, visible, seeds = _scenes(world, core_strength=1.0, shortcut_strength=0.0)
    flipped = render(config, core, 1 - visible, seeds)
    assert np.array_equal(render(config, core, visible, seeds), flipped)


@pytest.mark.parametrize("world", sorted(WORLDS))
def test_each_factor_changes_the_image_and_more_strength_changes_it_more(world):
    def change(factor, strength):
        by = {"core_strength": strength} if factor == "core" else {"shortcut_strength": strength}
        config, core, visible, seeds = _scenes(world, **by)
        before = render(config, core, visible, seeds).astype(float)
        if factor == "core":
            core = 1 - core
        else:
            visible = visible.copy()
            visible[:, factor] = 1 - visible[:, factor]
        return np.abs(render(config, core, visible, seeds) - before).mean()

    for factor in ("core", 0, 1):
        assert 0 < change(factor, 0.4) < change(factor, 0.9)


@pytest.mark.parametrize("world", ["factory", "shapes", "clinic"])
def test_size_and_brightness_do_not_give_the_class_away(world):
    config, core, visible, seeds = _scenes(world, n=600, size=64)
    brightness = render(config, core, visible, seeds).astype(float).mean(axis=(1, 2, 3))
    gap = abs(brightness[core == 0].mean() - brightness[core == 1].mean())
    assert gap < 0.25 * brightness.std()


@pytest.mark.parametrize("world", sorted(WORLDS))
def test_images_in_the_table_are_what_render_draws(world):
    part = load("spurious_scenes", world=world, **TINY)["test"]
    config = scene_config(part)
    visible = np.stack([_column(part, f"factor_{s.name}") for s in WORLDS[world].visible], axis=1)
    drawn = render(config, _column(part, "clean_label"), visible, _column(part, "scene_seed"))
    assert np.array_equal(_images(part), drawn)


def test_counterfactual_changes_one_factor_only():
    part = load("spurious_scenes", **TINY)["test"]
    images, factor = _images(part), _column(part, "factor_scanner_mark")
    same = counterfactual(part, "scanner_mark", factor)
    other = counterfactual(part, "scanner_mark", 1 - factor)
    assert np.array_equal(same, images)
    changed = (other != images).any(axis=(0, 3))
    assert changed[:5, :5].any()
    # The mark sits in the upper left corner: the rest of the picture, grain included, is untouched.
    assert not changed[8:, 8:].any()
    assert not np.array_equal(counterfactual(part, "core", 1)[_column(part, "clean_label") == 0], images[:1])
    subset = part.select([5, 3])
    assert np.array_equal(counterfactual(subset, "scanner_mark", 1), counterfactual(part, "scanner_mark", 1)[[5, 3]])


def test_seeds_and_splits_give_different_scenes():
    data = load("spurious_scenes", **TINY)
    again = load("spurious_scenes", **TINY)
    other = load("spurious_scenes", seed=1, **TINY)
    seeds = {split: set(_column(part, "scene_seed").tolist()) for split, part in data.items()}
    assert not seeds["train"] & seeds["test"]
    assert not seeds["train"] & seeds["validation"]
    assert np.array_equal(_images(data["train"]), _images(again["train"]))
    assert not set(_column(other["train"], "scene_seed").tolist()) & seeds["train"]


def test_hashed_numbers_are_uniform_and_uncorrelated():
    values = uniform(np.arange(4000), 8, 1)
    assert values.min() >= 0
    assert values.max() < 1
    histogram = np.histogram(values, bins=16, range=(0, 1))[0]
    assert np.abs(histogram / 2000 - 1).max() < 0.12
    correlation = np.corrcoef(np.column_stack([values, uniform(np.arange(4000), 8, 2), np.roll(values, 1, axis=0)]).T)
    assert np.abs(correlation - np.eye(24)).max() < 0.08
    assert len(np.unique(hashed(np.arange(1000), 10, 0))) > 9990


def test_smooth_field_is_smooth_and_bounded():
    field = smooth_field(np.arange(50), 32, 5, 0)
    assert field.shape == (50, 32, 32)
    assert np.abs(field).max() <= 1
    assert np.abs(np.diff(field, axis=1)).mean() < 0.3 * field.std()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"world": "ocean"}, "world must be one of clinic, factory, shapes"),
        ({"image_size": 8}, "image_size must be 16 or more"),
        ({"core_strength": 3}, r"core_strength must lie in \[0, 2\]"),
        ({"shortcut_strength": -1}, "shortcut_strength must be a share"),
        ({"shortcuts": ("colour",)}, "clinic has the shortcuts scanner_mark, position, site"),
        ({"shortcuts": ("site", "site")}, "each once"),
        ({"aligned": {"site": 0.9}}, "aligned must give a share for each active shortcut, scanner_mark"),
        ({"aligned": 1.1}, "aligned must be a share"),
        ({"aligned_test": 2}, "aligned_test must be a share"),
        ({"label_noise": -0.1}, "label_noise must be a share"),
        ({"group_by": ()}, "at least one factor"),
        ({"n_test": 0}, "n_test must be at least 1"),
        ({"data_dir": "somewhere"}, "data_dir must be None"),
    ],
)
def test_options_out_of_range_are_refused(options, match):
    with pytest.raises(InvalidInputError, match=match):
        load("spurious_scenes", **{**TINY, **options})


def test_counterfactual_refuses_what_it_cannot_draw():
    part = load("spurious_scenes", **TINY)["test"]
    with pytest.raises(InvalidInputError, match="no visible factor 'site'; it has: core, scanner_mark, position"):
        counterfactual(part, "site", 1)
    with pytest.raises(InvalidInputError, match="values 0 and 1"):
        counterfactual(part, "position", 2)
    part.info.description = ""
    with pytest.raises(InvalidInputError, match="how it was drawn"):
        scene_config(part)
