"""Evidence in words. Its unit depends on what found the attribute, so each source has cut points of its own.

| source | unit of `Discovery.evidence_` | clear from | strong from |
|---|---|---|---|
| two classes | relative strength above the gate, in 1/100 | 40 | 100 |
| more classes, mixture | penalised likelihood gain per 1,000 examples | 100 | 250 |
| more classes, refined starts | relative strength above the gate, in 1/100 | 100 | never |
| more classes, rough partition | discriminant score above the gate, in 1/100 | 250 | never |
| hint | association with the label, in standard errors of chance | 5 | 10 |

With fewer than 300 examples the word is one step lower. The cut points were set on planted latents
(`benchmarks/audit_power.py`); `docs/audit.md` tells what each word was worth there. Of 143 refined starts of five
classes in more than 300 examples with such evidence 130 were right, and no higher evidence made it more.
"""

from __future__ import annotations

from aifs_peft.discovery import Discovery

WORDS = ("none", "weak", "clear", "strong")
# Evidence at which "clear" and "strong" begin.
BINARY_CUTS = (40.0, 100.0)
MIXTURE_CUTS = (100.0, 250.0)
ROUGH_CUTS = (250.0, float("inf"))
REFINED_CUTS = (100.0, float("inf"))
HINT_CUTS = (5.0, 10.0)
# In smaller samples high evidence was found for wrong partitions, too.
FEW_ROWS = 300


def evidence_words(discovery: Discovery) -> str:
    """`"none"`, `"weak"`, `"clear"` or `"strong"`; of several attributes the word of the weakest.

    Args:
        discovery: what was found, or the statement that nothing was.

    Example:
        >>> import numpy as np
        >>> from aifs_peft.discovery import discover
        >>> rng = np.random.default_rng(0)
        >>> evidence_words(discover(rng.normal(size=(200, 8)), np.arange(200) % 2, random_state=0))
        'none'
    """
    if not discovery.found:
        return WORDS[0]
    parts = discovery.parts_ or (discovery,)
    return min(
        (
            word_of(
                part.evidence_, len(part.groups_), cuts_of(len(part.classes_), rough=part.rough_, source=part.source_)
            )
            for part in parts
        ),
        key=WORDS.index,
    )


def word_of(evidence: float, n: int, cuts: tuple[float, float]) -> str:
    """The word for the evidence of something found in `n` examples, by the cut points of its source.

    Example:
        >>> word_of(120.0, 1000, BINARY_CUTS), word_of(120.0, 200, BINARY_CUTS)
        ('strong', 'clear')
    """
    level = 1 + (evidence >= cuts[0]) + (evidence >= cuts[1])
    return WORDS[max(1, level - (n < FEW_ROWS))]


def cuts_of(n_classes: int, *, rough: bool = False, source: str = "") -> tuple[float, float]:
    """Where "clear" and "strong" begin.

    Args:
        n_classes: number of classes.
        rough: `Discovery.rough_`.
        source: `Discovery.source_`.

    Example:
        >>> cuts_of(2), cuts_of(10, rough=True), cuts_of(10, rough=True, source="margins+refined")
        ((40.0, 100.0), (250.0, inf), (100.0, inf))
    """
    if source.startswith("hint:"):
        return HINT_CUTS
    if n_classes == 2:
        return BINARY_CUTS
    if source.endswith("+refined"):
        return REFINED_CUTS
    return ROUGH_CUTS if rough else MIXTURE_CUTS
