"""scikit-learn's `Pipeline` and `GridSearchCV`, with a score that does not prefer the model that leans on the shortcut.

Run `python examples/sklearn_pipeline.py`.
"""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aifs_peft import AIFSClassifier, discover
from aifs_peft.audit import make_worst_inferred_group_scorer, worst_inferred_group_scorer
from aifs_peft.metrics import group_metrics


def draw(n: int, aligned_share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents `(n, 40)`, labels, cells of label and attribute; only the first two are used to choose."""
    y = rng.integers(0, 2, n)
    attribute = np.where(rng.random(n) < aligned_share, y, 1 - y)
    Z = rng.normal(size=(n, 40))
    Z[:, 0] += 2.5 * y
    Z[:, 1] += 6 * attribute
    return Z, y, 2 * y + attribute


def main() -> None:
    """Choose on biased folds, test where the attribute says nothing."""
    rng = np.random.default_rng(0)
    Z, y, _ = draw(2000, 0.95, rng)
    Z_test, y_test, cells = draw(4000, 0.5, rng)

    def worst(model: GridSearchCV) -> str:
        return f"{group_metrics(y_test, model.predict(Z_test), cells)['worst_group_accuracy']:.3f}"

    # 1. Each candidate is judged by the groups it finds, or by its worst class where it finds none.
    aifs = make_pipeline(PCA(random_state=0), AIFSClassifier(random_state=0))
    grid = {"pca__n_components": [2, 10, 40]}
    search = GridSearchCV(aifs, grid, scoring=worst_inferred_group_scorer, cv=3).fit(Z, y)
    print(f"AIFS, {search.best_params_}: worst cell of the test {worst(search)}")

    # 2. Any classifier: by accuracy the biased folds choose the biased model, by groups inferred once they do not.
    plain = make_pipeline(StandardScaler(), LogisticRegression())
    grid = {"logisticregression": [LogisticRegression(), AIFSClassifier(random_state=0)]}
    for title, scoring in (
        ("accuracy", "accuracy"),
        ("worst inferred group", make_worst_inferred_group_scorer(discover(Z, y, random_state=0))),
    ):
        search = GridSearchCV(plain, grid, scoring=scoring, cv=3).fit(Z, y)
        chosen = type(search.best_estimator_[-1]).__name__
        print(f"chosen by {title}: {chosen}, worst cell of the test {worst(search)}")


if __name__ == "__main__":
    main()
