"""`aifs audit`: the examples that go against a shortcut in the user's own data, and an honest "nothing found"."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pictures import DAMAGED, deep_and_plain, write_damaged, write_kinds
from planted import planted

from aifs_peft import cli
from aifs_peft.data import load


def table(folder: Path, **options: float) -> tuple[Path, np.ndarray]:
    """A Parquet table of latents with a planted shortcut, and which rows go against it."""
    z, y, attribute = planted(n=1000, **options)
    rows = pd.DataFrame({
        "latent": list(z.numpy().astype(np.float32)),
        "diagnosis": np.where(y.numpy() == 1, "sick", "healthy"),
        "scanner": np.where(attribute.numpy() == 1, "B", "A"),
        "site": np.random.default_rng(0).integers(0, 4, 1000),
    })  # fmt: skip
    path = folder / "scans.parquet"
    rows.to_parquet(path)
    return path, (attribute != y).numpy()


def audit(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert cli.main(["audit", *argv]) == 0
    return capsys.readouterr().out


def test_the_conflicting_rows_of_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, against = table(tmp_path, shortcut=5.0)
    columns = ["--label", "diagnosis", "--dataset-options", '{"features": "latent"}']
    text = audit([str(path), *columns, "--output-dir", str(tmp_path / "out"), "--quiet"], capsys)
    assert "scanner" in text
    listed = pd.read_csv(tmp_path / "out" / "audit" / "conflicting.csv")
    truth = set(np.flatnonzero(against))
    assert len(set(listed["row"]) & truth) / len(listed) >= 0.95
    assert len(set(listed["row"]) & truth) / len(truth) >= 0.95
    assert f"conflicting: {tmp_path / 'out' / 'audit' / 'conflicting.csv'}" in text
    assert (tmp_path / "out" / "report.html").is_file()
    told = json.loads(audit([str(path), *columns, "--output-dir", str(tmp_path / "out"), "--json"], capsys))
    assert told["found"] is True
    assert told["n_conflicting"] == len(listed)
    assert told["files"]["report"].endswith("report.html")


def test_doctor_and_audit_read_the_same_options_of_own_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = table(tmp_path, shortcut=5.0)
    columns = ["--label", "diagnosis", "--features", "latent"]
    text = audit([str(path), *columns, "--output-dir", str(tmp_path / "out"), "--quiet", "--harm", "false"], capsys)
    assert "scanner" in text
    assert cli.main(["doctor", "--dataset", str(path), *columns, "--attribute", "scanner"]) == 0
    told = capsys.readouterr().out
    assert "healthy x A" in told
    assert cli.main(["doctor", "--dataset", str(path), *columns[:2], "--features", "latents"]) == 1
    assert "did you mean 'latent'?" in capsys.readouterr().out


def test_all_columns_of_numbers_are_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    z, y, _ = planted(n=300, shortcut=5.0)
    frame = pd.DataFrame(z.numpy(), columns=[f"wert {i}" for i in range(z.shape[1])])
    frame.assign(klasse=y.numpy()).to_csv(tmp_path / "werte.csv", sep=";", decimal=",", index=False)
    columns = ["--label", "klasse", "--features", "all", "--output-dir", str(tmp_path / "out"), "--quiet"]
    assert f"300 examples, 2 classes, {z.shape[1]} dimensions" in audit([str(tmp_path / "werte.csv"), *columns], capsys)


def test_nothing_found_is_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = table(tmp_path, agreement=0.5)
    columns = ["--label", "diagnosis", "--dataset-options", '{"features": "latent"}', "--metadata", "site"]
    text = audit([str(path), *columns, "--output-dir", str(tmp_path / "out"), "--quiet"], capsys)
    assert "No shortcut" in text
    assert "scanner" not in text
    assert pd.read_csv(tmp_path / "out" / "audit" / "conflicting.csv").empty


def test_a_known_data_set_of_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = json.dumps({"n_train": 80, "n_validation": 20, "n_test": 20, "image_size": 16})
    argv = ["spurious_scenes", "--dataset-options", options, "--output-dir", str(tmp_path / "out"), "--json"]
    told = json.loads(audit(argv, capsys))
    assert told["looked_at"]["n"] == 80
    assert told["found"] in (True, False)


def test_own_deep_pictures_are_audited_like_their_8_bit_copies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes = load("spurious_scenes", n_train=80, n_validation=10, n_test=10, image_size=16)["train"]
    told = []
    for kind, images in zip(("deep", "plain"), deep_and_plain(scenes["image"][:]), strict=True):
        folder = tmp_path / kind
        folder.mkdir()
        for row, image in enumerate(images):
            image.save(folder / f"{row}.png")
        lines = [f"{row}.png,{'ab'[label]}" for row, label in enumerate(scenes["label"][:])]
        (folder / "table.csv").write_text("\n".join(["image,label", *lines]))
        out = str(tmp_path / f"out-{kind}")
        told.append(json.loads(audit([str(folder / "table.csv"), "--output-dir", out, "--json", "--quiet"], capsys)))
        del told[-1]["files"]
    assert told[0] == told[1]
    assert told[0]["looked_at"]["n"] == 80


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_picture_of_a_table_is_one_line_with_its_path(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_kinds(tmp_path)
    write_damaged(tmp_path)
    sound = [f"plain/{path.name}" for path in sorted((tmp_path / "plain").iterdir())]
    lines = [f"{path},{'ab'[row % 2]}" for row, path in enumerate([*sound, name])]
    (tmp_path / "table.csv").write_text("\n".join(["image,label", *lines]))
    out = str(tmp_path / "out")
    assert cli.main(["audit", str(tmp_path / "table.csv"), "--output-dir", out, "--quiet"]) == 2
    shown = capsys.readouterr().err
    assert name in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "required: DATA"),
        (["waterbird"], "did you mean 'waterbirds'"),
        (["nowhere.csv", "--label", "x"], "nowhere.csv"),
        (["spurious_scenes", "--metadata", "grup"], "did you mean"),
        (["spurious_scenes", "--part", "tset"], "did you mean 'test'"),
        (["spurious_scenes", "--model", "nobody/nothing"], "not a local directory"),
        (["spurious_scenes", "--batch-size", "0"], "at least 1"),
    ],
)
def test_mistakes_are_one_line(argv: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--dataset-options", json.dumps({"n_train": 80, "n_validation": 20, "n_test": 20, "image_size": 16})]
    given = [*argv, *small] if argv[:1] == ["spurious_scenes"] else argv
    assert cli.main(["audit", *given, "--output-dir", str(tmp_path / "out"), "--quiet"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert told in lines[0]
