"""`audit`: is there a shortcut in latents, what is it, who is hurt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.random import RandomState
    from numpy.typing import ArrayLike

    from aifs_peft.audit.result import Audit
    from aifs_peft.discovery import Discovery


def audit(
    Z: Any,
    y: Any,
    *,
    metadata: Any = None,
    inputs: Any = None,
    predictions: Any = None,
    vocabulary: Mapping[str, ArrayLike] | None = None,
    unlabelled: Any = None,
    discovery: Discovery | None = None,
    class_names: Any = None,
    random_state: int | RandomState | None = 0,
    harm: bool = True,
    folds: int = 5,
) -> Audit:
    """Look for a shortcut in latents and tell what it is and who is hurt. Nothing is trained but plain linear heads.

    Args:
        Z: latents, `(n, d)`: array, tensor or `DataFrame`; or what `discover` reads in blocks of rows: a memory map, a
            column of a `datasets.Dataset` or of pyarrow, a `LatentSource`.
        y: labels, `(n,)`: integers or strings, in an array, a `Series`, a list or a column of a data set.
        metadata: what is known of each example, a `DataFrame`, a `datasets.Dataset` or a mapping of names to columns.
            Compared with what was found, never used to find it (for that, pass
            `discovery=discover(Z, y, metadata=...)`).
        inputs: one path, text or image per example, to name the conflicting ones by.
        predictions: of a model that is to be judged: labels `(n,)`, or scores `(n, K)` with columns in the order of the
            sorted labels. On examples that the model was trained on it looks better than it is.
        vocabulary: words and their embeddings in the space of the latents, see `embed_words`.
        unlabelled: latents without labels, `(m, d)`, in which a shortcut goes with the label less; see `discover`. Not
            beside `discovery`, which has been made with them or without.
        discovery: a result of `discover` for the same data, for example with hints; `None` calls it.
        class_names: names in the order of the labels, or a mapping of labels to names.
        random_state: seed of discovery, folds and permutations.
        harm: whether to train plain heads on folds, to tell what the shortcut costs, or, where nothing is found, what
            unequal classes cost.
        folds: how many.

    Returns:
        An `Audit`.

    Raises:
        InvalidInputError: for what `discover` refuses; for tables, inputs or predictions that are not one per example.
        InvalidConfigError: for fewer than two folds, or `unlabelled` beside `discovery`.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); scanner = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> Z = rng.normal(size=(1000, 16)); Z[:, 0] += 8 * scanner; Z[:, 1] += 2 * y
        >>> found = audit(Z, y, metadata={"scanner": scanner}, class_names=["benign", "malignant"])
        >>> found.found, found.evidence_words, found.associations.column[0]
        (True, 'strong', 'scanner')
        >>> found.conflicting.columns.tolist()
        ['row', 'input', 'label', 'inferred', 'confidence', 'scanner']
    """
    # Imported here: `aifs_peft` imports this function, and must stay quick to import.
    from aifs_peft.audit.build import build_audit, scores_in

    word_scores = None if vocabulary is None else scores_in(Z, vocabulary)
    return build_audit(
        Z, y, metadata=metadata, inputs=inputs, predictions=predictions, word_scores=word_scores, unlabelled=unlabelled,
        discovery=discovery, class_names=class_names, random_state=random_state, harm=harm, folds=folds,
    )  # fmt: skip
