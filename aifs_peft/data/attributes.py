"""Attribute vocabularies: which words, bins or concepts an example has, as a column `attributes` of 0 and 1.

Attributes name what a shortcut may be, without saying that it is one and without group labels. Texts and tables are
read here; images need a model and are read in `aifs_peft.data.image_attributes`. Sources: Zheng, Ye, Zhang,
"Spuriousness-Aware Meta-Learning for Learning Robust Classifiers", KDD 2024 (captions; concepts found more than 10
times); words of the texts themselves and bins of columns are this library's counterpart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.errors import InvalidInputError

COLUMN = "attributes"
# A letter, then letters; apostrophes and hyphens inside a word stay.
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")


@dataclass(frozen=True)
class Attributes:
    """What each example has.

    Attributes:
        names: of the V attributes.
        values: `(n, V)` uint8, 1 where an example has an attribute.

    Raises:
        InvalidInputError: if names and values do not fit, or a value is neither 0 nor 1.

    Example:
        >>> Attributes(("water",), np.array([[1], [0]], dtype=np.uint8)).values.shape
        (2, 1)
    """

    names: tuple[str, ...]
    values: NDArray[np.uint8]

    def __post_init__(self) -> None:
        fits = self.values.ndim == 2 and self.values.shape[1] == len(self.names)
        if not fits or not np.isin(self.values, (0, 1)).all():
            raise InvalidInputError(
                f"attributes need one column of 0 and 1 per name; got {len(self.names)} names and values of shape "
                f"{self.values.shape}"
            )


def frequent(attributes: Attributes, *, more_than: int = 10, most: int = 512) -> Attributes:
    """Leave out what is rare, and what says nothing because every example has it.

    Args:
        attributes: all that was found.
        more_than: an attribute stays if more examples than this have it (10 in the paper).
        most: at most so many stay, the most frequent.

    Returns:
        The rest, in order of frequency, then name.

    Raises:
        InvalidInputError: if nothing is left.

    Example:
        >>> have = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)
        >>> frequent(Attributes(("sea", "bird", "boat"), have), more_than=1).names
        ('sea',)
    """
    counts = attributes.values.sum(0, dtype=np.int64)
    keep = np.flatnonzero((counts > more_than) & (counts < len(attributes.values)))
    if not len(keep):
        raise InvalidInputError(
            f"no attribute is found in more than {more_than} of {len(attributes.values)} examples and missing in "
            "another; lower more_than or the document frequency, or use another vocabulary"
        )
    keep = np.asarray(sorted(keep, key=lambda i: (-counts[i], attributes.names[i])))[:most]
    return Attributes(tuple(attributes.names[i] for i in keep), attributes.values[:, keep])


def words_of(text: str) -> list[str]:
    """Lower-case words of letters, in order; numbers and signs are left out.

    Example:
        >>> words_of("A bird-like thing, don't 3 times!")
        ['a', 'bird-like', 'thing', "don't", 'times']
    """
    return _WORD.findall(text.lower())


def word_attributes(texts: Sequence[str], *, more_than: int = 10, most: int = 512) -> Attributes:
    """Which of the frequent words each text holds; function words (scikit-learn's English list) are left out.

    Args:
        texts: one per example.
        more_than: a word counts if more texts than this hold it.
        most: at most so many words, the most frequent.

    Returns:
        Attributes named by their words.

    Raises:
        InvalidInputError: if no word is frequent enough.

    Example:
        >>> word_attributes(["The cat sat", "a cat", "a dog"], more_than=1).names
        ('cat',)
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return from_word_sets([set(words_of(text)) - ENGLISH_STOP_WORDS for text in texts], more_than=more_than, most=most)


def from_word_sets(found: Sequence[set[str]], *, more_than: int = 10, most: int = 512) -> Attributes:
    """Attributes of the words found in each example; see `frequent` for which stay.

    Args:
        found: the words of each example.
        more_than: a word stays if more examples than this have it.
        most: at most so many words.

    Raises:
        InvalidInputError: if none stays.

    Example:
        >>> from_word_sets([{"sea"}, {"sea", "sky"}, set()], more_than=1).values.ravel()
        array([1, 1, 0], dtype=uint8)
    """
    counts = Counter(word for words in found for word in words)
    # The table is made of frequent words alone: a corpus has more rare ones than fit in memory.
    names = tuple(sorted(word for word, count in counts.items() if count > more_than))
    place = {name: i for i, name in enumerate(names)}
    values = np.zeros((len(found), len(names)), dtype=np.uint8)
    for row, words in enumerate(found):
        values[row, [place[word] for word in words if word in place]] = 1
    return frequent(Attributes(names, values), more_than=more_than, most=most)


def table_attributes(
    features: NDArray[Any], names: Sequence[str] | None = None, *, bins: int = 4, more_than: int = 10, most: int = 512
) -> Attributes:
    """Each column as indicators: one per value where it has at most `bins` values, else one per quantile bin.

    Args:
        features: `(n, columns)`, numbers.
        names: of the columns; None numbers them.
        bins: quantile bins, at least 2.
        more_than: an indicator stays if more rows than this have it.
        most: at most so many indicators.

    Returns:
        Attributes named "column = value" or "column in (low, high]".

    Raises:
        InvalidInputError: for another shape, NaN, a wrong number of names, or nothing left.

    Example:
        >>> table = np.column_stack([np.tile([0, 1], 50), np.arange(100)])
        >>> table_attributes(table, ["sex", "age"], bins=2).names
        ('age in (-inf, 49.5]', 'age in (49.5, inf]', 'sex = 0', 'sex = 1')
    """
    table = np.asarray(features, dtype=np.float64)
    titles = [f"column {i}" for i in range(table.shape[-1])] if names is None else list(names)
    if table.ndim != 2 or len(titles) != table.shape[1] or not np.isfinite(table).all() or bins < 2:
        raise InvalidInputError(
            f"features must be a finite table (n, columns) with one name per column, and bins at least 2; got shape "
            f"{table.shape}, {len(titles)} names, {int((~np.isfinite(table)).sum())} values that are not finite, "
            f"bins={bins}"
        )
    columns: dict[str, NDArray[np.bool_]] = {}
    for title, column in zip(titles, table.T, strict=True):
        distinct = np.unique(column)
        if len(distinct) <= bins:
            columns |= {f"{title} = {value:g}": column == value for value in distinct}
            continue
        inner = np.unique(np.quantile(column, np.arange(1, bins) / bins))
        edges = [-np.inf, *inner, np.inf]
        for low, high in pairwise(edges):
            columns[f"{title} in ({low:g}, {high:g}]"] = (column > low) & (column <= high)
    values = np.stack(list(columns.values()), axis=1).astype(np.uint8)
    return frequent(Attributes(tuple(columns), values), more_than=more_than, most=most)


def with_attributes(dataset: Any, attributes: Attributes) -> Any:
    """The data set with the column `attributes`, which `spume` reads.

    Args:
        dataset: `datasets.Dataset`.
        attributes: of its examples, in order.

    Returns:
        A new `datasets.Dataset`; a column of that name is replaced.

    Raises:
        InvalidInputError: if the lengths differ.

    Example:
        >>> from datasets import Dataset
        >>> rows = Dataset.from_dict({"text": ["a", "b"]})
        >>> with_attributes(rows, Attributes(("x",), np.array([[1], [0]], dtype=np.uint8)))["attributes"][:]
        [[1], [0]]
    """
    if len(dataset) != len(attributes.values):
        raise InvalidInputError(
            f"attributes of {len(attributes.values)} examples do not fit a data set of {len(dataset)}; make them of "
            "the same split, in the same order"
        )
    if COLUMN in dataset.column_names:
        dataset = dataset.remove_columns(COLUMN)
    from datasets import List, Value

    feature = List(Value("uint8"), length=len(attributes.names))
    return dataset.add_column(COLUMN, list(attributes.values), feature=feature)
