"""Find a shortcut in latents and train a head that ignores it, with scikit-learn's conventions.

Planted Gaussian latents: one core direction, one stronger shortcut that is right for 95 % of the training examples.
Run `python examples/classifier_on_latents.py`.
"""

import numpy as np

from aifs_peft import AIFSClassifier
from aifs_peft.metrics import format_group_table, group_metrics


def draw(n: int, aligned_share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents `(n, 64)`, labels and the shortcut's value; only the first two are used in training."""
    y = rng.integers(0, 2, n)
    attribute = np.where(rng.random(n) < aligned_share, y, 1 - y)
    Z = rng.normal(size=(n, 64))
    Z[:, 0] += 2.5 * y
    Z[:, 1] += 6.0 * attribute
    return Z, y, attribute


def main() -> None:
    """Train on biased data, test on balanced data, with and without discovery."""
    rng = np.random.default_rng(0)
    Z, y, _ = draw(3000, 0.95, rng)
    Z_test, y_test, attribute = draw(4000, 0.5, rng)
    for recipe in ("erm", "discovery"):
        classifier = AIFSClassifier(recipe=recipe, random_state=0).fit(Z, y)
        result = group_metrics(y_test, classifier.predict(Z_test), 2 * y_test + attribute)
        print(f"\n{recipe}\n{format_group_table(result)}")
    print(f"\n{classifier.discovery_.summary()}")


if __name__ == "__main__":
    main()
