"""Journey 3: latents in a Parquet file, scikit-learn's conventions, a plot, a list, and an honest nothing."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from aifs_peft import AIFSClassifier, audit
from aifs_peft.data import from_table
from aifs_peft.metrics import group_metrics

KINDS = np.array(["car", "truck"])


def latents(n: int, aligned_share: float, seed: int) -> pd.DataFrame:
    """A core feature and a stronger road, which fits the kind in a share of the rows; 400 are a balanced test."""
    rng = np.random.default_rng(seed)
    test = np.arange(n) >= n - 400
    kind, share = rng.integers(0, 2, n), np.where(test, 0.5, aligned_share)
    road = np.where(rng.random(n) < share, kind, 1 - kind)
    Z = rng.normal(size=(n, 24))
    Z[:, 3] += 2.5 * kind
    Z[:, 7] += 6 * road
    return pd.DataFrame({
        "embedding": list(Z.astype(np.float32)), "kind": KINDS[kind], "road": np.array(["city", "field"])[road],
        "photo": [f"{i:04d}.jpg" for i in range(n)], "split": np.where(test, "test", "train"),
    })  # fmt: skip


def arrays(rows: object) -> tuple[np.ndarray, np.ndarray]:
    """Latents, and labels as the words that the user wrote."""
    return np.asarray(rows["features"]), np.asarray(rows.features["label"].names)[rows["label"][:]]


def test_from_parquet_to_a_plot_a_list_and_a_classifier_that_turns_away(tmp_path: Path) -> None:
    mpl.use("Agg")
    latents(2000, 0.95, seed=0).to_parquet(tmp_path / "latents.parquet")
    splits = from_table(tmp_path / "latents.parquet", label="kind", attribute="road")
    (Z, y), (Z_test, y_test) = arrays(splits["train"]), arrays(splits["test"])

    classifier = AIFSClassifier(random_state=0).fit(Z, y)
    plain = AIFSClassifier("erm", random_state=0).fit(Z, y)
    cells = splits["test"]["group"][:]
    worst = [group_metrics(y_test == KINDS[1], c.predict(Z_test) == KINDS[1], cells)["worst_group_accuracy"]
             for c in (plain, classifier)]  # fmt: skip
    assert worst[1] >= worst[0] + 0.2

    found = audit(Z, y, metadata=splits["train"].select_columns(["road", "photo"]), random_state=0)
    assert found.found
    train = pd.DataFrame({"y": y, "road": splits["train"]["road"][:]})
    truth = set(np.flatnonzero((train["y"] == "car") != (train["road"] == "city")))
    listed = set(found.conflicting["row"])
    assert len(listed & truth) >= 0.95 * max(len(listed), len(truth))
    assert set(np.flatnonzero(classifier.discovery_.conflicting_)) == listed
    assert found.associations.iloc[0]["column"] == "road"
    found.to_csv(tmp_path / "conflicting.csv")
    assert set(pd.read_csv(tmp_path / "conflicting.csv")["photo"]) == {splits["train"]["photo"][row] for row in listed}

    axes = found.plot()
    assert sum(len(points.get_offsets()) for points in axes.collections) == len(y)
    axes.figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


@pytest.mark.parametrize("seed", range(3))
def test_without_a_shortcut_it_says_so_and_trains_plainly(seed: int, tmp_path: Path) -> None:
    latents(2000, 0.5, seed).to_parquet(tmp_path / "latents.parquet")
    splits = from_table(tmp_path / "latents.parquet", label="kind", attribute="road")
    (Z, y), (Z_test, y_test) = arrays(splits["train"]), arrays(splits["test"])

    found = audit(Z, y, metadata=splits["train"].select_columns(["road"]), random_state=0)
    assert not found.found
    assert found.conflicting.empty
    assert "No shortcut" in found.sentence
    assert f"{len(y):,} examples" in repr(found)
    assert found.looked_at["detectable_sentence"] in repr(found).replace("\n", " ")
    assert found.plot() is not None

    classifier = AIFSClassifier(random_state=0).fit(Z, y)
    assert not classifier.discovery_.found
    assert not classifier.discovery_.conflicting_.any()
    plain = AIFSClassifier("erm", random_state=0).fit(Z, y)
    assert abs(classifier.score(Z_test, y_test) - plain.score(Z_test, y_test)) < 0.03
