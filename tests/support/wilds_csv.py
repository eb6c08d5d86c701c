"""A generated file in the layout of WILDS' CivilComments."""

from pathlib import Path

import numpy as np
import pandas as pd

from aifs_peft.data.civilcomments import FILE, IDENTITIES


def write_wilds(folder: Path, n: int = 300) -> pd.DataFrame:
    """`n` rows in equal thirds, with fractions of raters, empty identity cells and awkward texts; returns the table."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.choice([0.0, 0.3, 0.5, 1.0, np.nan], (n, len(IDENTITIES))), columns=list(IDENTITIES))
    table["identity_any"] = (table >= 0.5).any(axis=1).astype(float)
    table["toxicity"] = rng.choice([0.0, 0.49, 0.5, 0.9], n)
    table["split"] = np.repeat(["train", "val", "test"], n // 3)
    table["comment_text"] = [f'row {i}, "quoted",\nsecond line' for i in range(n)]
    table.loc[0, "comment_text"] = "nan"
    (folder / "civilcomments_v1.0").mkdir()
    table.to_csv(folder / "civilcomments_v1.0" / FILE)
    return table
