"""COMPAS: does a label-free search find race or sex in a real table? Latents are the standardised columns themselves.

Run `python examples/compas.py FOLDER`, with ProPublica's compas-scores-two-years.csv in it; or set AIFS_SHARED.
"""

import os
import sys
from pathlib import Path

import numpy as np

from aifs_peft import AIFSClassifier, audit, data
from aifs_peft.metrics import group_metrics


def main(folder: Path) -> None:
    """Rearrest within two years, cells of rearrest x race; race is read for the numbers alone."""
    if not any(folder.glob("compas-scores-two-years.csv*")):
        print(f"skipped: no compas-scores-two-years.csv in {folder}; get it from github.com/propublica/compas-analysis")
        return
    splits = data.load("compas", folder)
    train, test = splits["train"], splits["test"]
    Z, y, Z_test = np.asarray(train["features"][:]), np.asarray(train["label"][:]), np.asarray(test["features"][:])
    print(audit(Z, y, metadata=train.select_columns(["race", "sex"]), random_state=0).sentence)
    for title, recipe in (("plain logistic regression", "erm"), ("AIFS", "discovery")):
        classifier = AIFSClassifier(recipe, random_state=0).fit(Z, y)
        result = group_metrics(test["label"][:], classifier.predict(Z_test), test["group"][:])
        print(f"{title:26} average {result['average_accuracy']:.3f}  worst of rearrest x race "
              f"{result['worst_group_accuracy']:.3f}")  # fmt: skip
    if not classifier.discovery_.found:
        print("What differs is the even weight of the classes alone: no attribute was found, and none is unlearnt.")


if __name__ == "__main__":
    shared = Path(os.environ.get("AIFS_SHARED", Path(__file__).parents[2] / "shared"))
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else shared / "data" / "compas")
