"""The numbers of AIFS with discovery that a user may set."""

from __future__ import annotations

from dataclasses import dataclass

from aifs_peft._checks import check_choice, check_number


@dataclass(frozen=True)
class AIFSOptions:
    """Numbers of AIFS with discovery.

    Args:
        synthetic: weight of the cross-entropy on synthetic examples, at least 0; 0 leaves them out. Used once a
            spurious attribute has been found, unless its partition is rough (see `Discovery.rough_`) or there are
            several attributes.
        observed: weight of the cross-entropy on the examples themselves beside synthetic ones, at least 0. None takes 1
            where the encoder is trained and 0.2 where it is frozen. No effect where there are none.
        balance: how cells of label and inferred attribute are balanced: by repeated "draws" of the small ones, or by
            "logits" that carry the log shares of the classes within an attribute value; synthetic examples go with
            draws alone. "auto" takes logits for two classes and an encoder that is trained, and draws otherwise.
        refit: L2 penalty of the last layer's fit after the training of an encoder, on features of unit variance, at
            least 0; 0 keeps the layer as it was trained. None takes 0.3 for two classes and 0 for more.
        class_weight: where no attribute was found: "balanced" trains with logits that carry the log shares of the
            classes, so that a rare class counts as much as a frequent one; None is plain training.
        search_layers: where an attribute is looked for before training: in the "last" latent alone; or, where that
            shows none that is tied to the label (Cramer's V below 0.4), in "several" layers: the blocks at a quarter,
            half and three quarters of the encoder's depth beside it, which costs one more pass of the encoder. "auto"
            takes several for two classes and an encoder that is trained, and the last one otherwise. Nothing changes
            where the encoder's blocks are not known.

    Raises:
        InvalidConfigError: for a weight out of range.
    """

    synthetic: float = 1.0
    observed: float | None = None
    balance: str = "auto"
    refit: float | None = None
    class_weight: str | None = "balanced"
    search_layers: str = "auto"

    def __post_init__(self) -> None:
        if self.class_weight is not None:
            check_choice("class_weight", self.class_weight, ("balanced",))
        check_choice("balance", self.balance, ("auto", "draws", "logits"))
        check_choice("search_layers", self.search_layers, ("auto", "last", "several"))
        if self.refit is not None:
            check_number("refit", self.refit, 0.0)
        check_number("synthetic", self.synthetic, 0.0)
        if self.observed is not None:
            check_number("observed", self.observed, 0.0)
