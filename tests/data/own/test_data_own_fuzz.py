"""Damaged tables of one's own: an error of this package or a sound data set, and nothing else."""

import shutil
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutations import damage
from own_data import write_pictures
from own_files import CASES, FRAME, odd_frame

from aifs_peft.data import group_array, group_spec, load_own
from aifs_peft.data.notes import DataWarning
from aifs_peft.errors import AIFSError

ROUNDS = 40


@pytest.mark.parametrize("case", CASES)
def test_only_errors_of_this_package_come_out(case: str, tmp_path: Path) -> None:
    name, write, table, options = CASES[case]
    write_pictures(tmp_path / "sound", FRAME["path"].tolist())
    write(tmp_path / "sound" / name)
    assert not _refusal(tmp_path / "sound" / name, options)
    rng = np.random.default_rng(zlib.crc32(case.encode()))
    refused = 0
    for turn in range(ROUNDS):
        folder = tmp_path / str(turn)
        shutil.copytree(tmp_path / "sound", folder)
        damage(folder / name, rng, table)
        message = _refusal(folder / name if turn % 2 else folder, options)
        assert "\n" not in message
        refused += bool(message)
    assert refused > ROUNDS / 5


def _refusal(source: Path, options: dict[str, Any]) -> str:
    """The error of this package, empty where the data were accepted; any other error goes through."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DataWarning)
            splits = load_own(source, **options)
    except AIFSError as error:
        return str(error)
    for part in splits.values():
        labels = np.asarray(part["label"][:])
        assert labels.min() >= 0
        assert len(part.features["label"].names) > labels.max()
        if "group" in part.column_names:
            group_spec(splits).counts(group_array(part))
        if "features" in part.column_names:
            assert np.isfinite(np.asarray(part["features"][:])).all()
        if "image" in part.column_names:
            assert part[0]["image"].size == (3, 2)
    return ""


@pytest.mark.parametrize("seed", range(20))
def test_frames_of_any_objects(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(8):
        frame = odd_frame(rng)
        for options in (
            {"text": "report", "label": "finding", "attribute": "scanner"},
            {"features": ["age"], "label": "finding", "attribute": "case", "missing": "drop"},
            {"image": "path", "label": "scanner", "missing": "drop"},
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DataWarning)
                try:
                    load_own(frame, **options)
                except AIFSError as error:
                    assert "\n" not in str(error)  # noqa: PT017
