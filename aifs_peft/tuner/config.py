"""`AIFSConfig`: everything an AIFS adapter needs to know, one JSON file."""

from __future__ import annotations

import copy
import enum
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from peft import PEFT_TYPE_TO_TUNER_MAPPING, PeftConfig

from aifs_peft._checks import check_choice, check_count, check_number, is_finite
from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent.recipes import RECIPES, Recipe


class AIFSPeftType(enum.StrEnum):
    """The `peft_type` of this method; equal to, and hashed like, the plain string in `adapter_config.json`."""

    AIFS = "AIFS"


# What a recipe sets when the user does not; the other numbers are the same in all recipes.
_SET_BY_RECIPE = ("noise", "mask_rule", "mask_scale", "sensitivity_sign", "use_basis", "attribution")

_CHOICES: dict[str, tuple[Any, ...]] = {
    "recipe": tuple(RECIPES),
    "noise": ("gaussian", "l1", "l2", "counterfactual"),
    "mask_rule": ("inverse", "inverse_relative", "direct"),
    "mask_scale": ("sum", "max", "mean"),
    "sensitivity_sign": (-1, 1),
    "attribution": ("ig", "lrp", "gradient_x_input", "smoothgrad"),
    "head": ("copy", "linear", "mlp"),
    "auxiliary": ("none", "linear", "mlp"),
    "pool": ("auto", "cls", "mean", "last"),
    "latents": ("last", "multi"),
}
ALL_LINEAR = "all-linear"
_NOT_NEGATIVE = ("lambda_", "alpha", "beta", "gamma")
# Of classes and of the width of a head: a guard against a mistyped or damaged configuration, not a limit of the method.
MOST = 10_000_000
# Of one saved tensor of the state: more training examples than that are a damaged file.
MOST_ENTRIES = 2**28
_OPTIONAL_COUNTS = ("top_k", "head_hidden", "num_labels")


@dataclass
class AIFSConfig(PeftConfig):
    """Configuration of an AIFS adapter: head, losses, mask and, optionally, an adapter for the encoder.

    Fields left at None are filled in by the recipe. `discovery` (the default) intervenes with counterfactual
    displacements in the basis of discovered directions and penalises reliance on them; `paper` is the published
    method to the letter (Gaussian noise on single dimensions, mask from the inverse of the attribution as it is
    printed, and the printed minus sign of the sensitivity term); `erm` trains the same head without either loss.

    Args:
        recipe: `"discovery"`, `"paper"` or `"erm"`.
        lambda_: strength of the intervention, at least 0.
        alpha: weight of the invariance loss, at least 0.
        beta: weight of the sensitivity loss, at least 0.
        noise: `"gaussian"`, `"l1"`, `"l2"` (on a sphere) or `"counterfactual"`.
        adversarial: choose the noise to hurt the head most; not with `"counterfactual"`.
        mask_rule: `"inverse"` (literal), `"inverse_relative"` or `"direct"`.
        mask_scale: `"sum"` (literal: the mask sums to one), `"max"` (largest entry one) or `"mean"`.
        gamma: sharpness of the mask, at least 0.
        eps0: floor of the attribution in the mask rule, above 0, relative to the mean attribution.
        sensitivity_sign: `1` penalises, `-1` (literal) rewards reliance on dimensions with a high mask.
        use_basis: intervene in the basis of discovered directions rather than on single dimensions.
        attribution: `"gradient_x_input"` (the printed formula: the gradient at the latent itself), `"ig"` (integrated
            gradients: its average over the path from zero), `"smoothgrad"` (its average over noise) or `"lrp"`.
        attribution_steps: steps of the path integral of `"ig"`, or draws of noise of `"smoothgrad"`.
        top_k: how many classes are attributed, each example's most probable ones; None takes all.
        class_weights: what each attributed class weighs, `w_k` of the formula: one number per class, or `"probability"`
            for each example's own class probabilities; None weighs them alike.
        ema_decay: decay of the running attribution scores, in `[0, 1)`; 0 keeps the last update alone.
        head: `"copy"` (structure of the base head, and its weights where they fit), `"linear"` or `"mlp"`.
        head_hidden: hidden width of `"mlp"`; None takes the latent's width.
        auxiliary: a second head on the same latents, trained beside the first by the methods that compare two
            (LfF, ULE): `"none"`, `"linear"` or `"mlp"`. It takes no part in predictions.
        target_modules: name of the head in the base model; None finds it.
        pool: how to reduce tokens to a latent: `"auto"`, `"cls"`, `"mean"` or `"last"`.
        latents: `"last"`, what the base model feeds its head; or `"multi"`: beside it the outputs of the blocks at a
            quarter, half and three quarters of the encoder's depth, averaged over their positions, each scaled to the
            same variance. Shortcuts that the last layer hardly shows are found there. The base head does not fit the
            wider latent, so `head="copy"` becomes `"linear"`, and such an adapter cannot be merged.
        encoder_adapter: a PEFT configuration (LoRA, IA3, ...) for the encoder, or its dict; None freezes the encoder.
        trained_modules: modules of the encoder that are trained whole and saved with the adapter, beside or instead of
            `encoder_adapter`: names, as PEFT matches them, or `"all-linear"` for every linear layer.
        num_labels: number of classes; None takes the base head's, or the length of `labels`.
        labels: names of the classes.
        new_layers: layers between encoder and head that the base model's checkpoint does not hold, so that they start
            at random; trained and saved with the adapter. Found by the adapter itself.
        latent_blocks: full names and widths of the blocks that `latents="multi"` reads. Found by the adapter itself.
        state_shapes: sizes of the saved mask, basis and so on; filled in by the adapter itself.

    Raises:
        InvalidConfigError: naming every field that is wrong, at once.

    Example:
        >>> config = AIFSConfig.paper()
        >>> config.lambda_, config.alpha, config.beta, config.sensitivity_sign, config.mask_rule, config.noise
        (0.5, 1.0, 0.5, -1, 'inverse', 'gaussian')
        >>> AIFSConfig(alpha=-1.0, head="tree")
        Traceback (most recent call last):
        aifs_peft.errors.InvalidConfigError: 2 problems in AIFSConfig:
        - head must be one of 'copy', 'linear', 'mlp'; got 'tree'.
        - alpha must be a finite number of at least 0; got -1.0.
    """

    recipe: Literal["discovery", "paper", "erm"] = "discovery"
    lambda_: float = Recipe.lambda_
    alpha: float = Recipe.alpha
    beta: float = Recipe.beta
    noise: Literal["gaussian", "l1", "l2", "counterfactual"] | None = None
    adversarial: bool = Recipe.adversarial
    mask_rule: Literal["inverse", "inverse_relative", "direct"] | None = None
    mask_scale: Literal["sum", "max", "mean"] | None = None
    gamma: float = Recipe.gamma
    eps0: float = Recipe.eps0
    sensitivity_sign: int | None = None
    use_basis: bool | None = None
    attribution: Literal["ig", "lrp", "gradient_x_input", "smoothgrad"] | None = None
    attribution_steps: int = Recipe.attribution_steps
    top_k: int | None = Recipe.top_k
    class_weights: list[float] | Literal["probability"] | None = None
    ema_decay: float = Recipe.ema_decay
    head: Literal["copy", "linear", "mlp"] = "copy"
    head_hidden: int | None = None
    auxiliary: Literal["none", "linear", "mlp"] = "none"
    target_modules: list[str] | str | None = None
    pool: Literal["auto", "cls", "mean", "last"] = "auto"
    latents: Literal["last", "multi"] = "last"
    encoder_adapter: PeftConfig | dict[str, Any] | None = field(default=None)
    trained_modules: list[str] | str | None = None
    num_labels: int | None = None
    labels: list[str] | None = None
    new_layers: list[str] | None = None
    latent_blocks: list[tuple[str, int]] | None = None
    state_shapes: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            super().__post_init__()
        except ValueError as error:  # of PEFT's own fields
            raise InvalidConfigError(str(error)) from error
        self.peft_type = AIFSPeftType.AIFS
        recipe = RECIPES.get(self.recipe) if isinstance(self.recipe, str) else None
        for name in _SET_BY_RECIPE if recipe is not None else ():
            if getattr(self, name) is None:
                setattr(self, name, getattr(recipe, name))
        if isinstance(self.target_modules, str):
            self.target_modules = [self.target_modules]
        # What is no list stays as it is, and is told below.
        elif isinstance(self.target_modules, tuple | set | frozenset):
            self.target_modules = sorted(self.target_modules)
        if isinstance(self.labels, tuple):
            self.labels = list(self.labels)
        problems = [
            *self._value_problems(), *self._label_problems(), *self._encoder_problems(), *self._whole_layer_problems()
        ]  # fmt: skip
        if problems:
            count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
            raise InvalidConfigError("\n- ".join([f"{count} in AIFSConfig:", *problems]))
        if self.labels is not None:
            self.num_labels = len(self.labels)
        if self.latents == "multi" and self.head == "copy":
            self.head = "linear"  # the base head reads the last latent alone

    @classmethod
    def paper(cls, **overrides: Any) -> AIFSConfig:
        """The published method with its published defaults, taken literally.

        `lambda = 0.5, alpha = 1.0, beta = 0.5`, Gaussian noise on single dimensions, attribution
        `(z - base) * sum_k w_k d log p(y_k|z) / dz` at the latent itself, mask proportional to
        `exp(gamma / (|attribution| + eps0))` summing to one, sensitivity term with the printed minus sign. The
        published text calls the attribution integrated gradients; `attribution="ig"` averages over the path, as
        these do.

        Args:
            **overrides: any other field, for example `encoder_adapter`.
        """
        return cls(recipe="paper", **overrides)

    @property
    def tunes_encoder(self) -> bool:
        """Whether the user asked for a tuned encoder; one with `new_layers` alone counts as frozen."""
        return self.nested is not None or bool(self.trained_modules)

    @property
    def nested(self) -> PeftConfig | None:
        """The encoder's adapter configuration, which `__post_init__` made of whatever was given."""
        return self.encoder_adapter if isinstance(self.encoder_adapter, PeftConfig) else None

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values, the encoder's configuration nested in it."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        out["encoder_adapter"] = self.nested.to_dict() if self.nested is not None else None
        plain: dict[str, Any] = _jsonable(copy.deepcopy(out))
        return plain

    def _value_problems(self) -> list[str]:
        checks: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, bool]]] = []
        for name, allowed in _CHOICES.items():
            if getattr(self, name) is not None or self.recipe in _CHOICES["recipe"]:
                checks.append((check_choice, (name, getattr(self, name), allowed), {}))
        checks += [(check_number, (name, getattr(self, name), 0), {}) for name in _NOT_NEGATIVE]
        checks.append((check_number, ("eps0", self.eps0, 0), {"above": True}))
        checks.append((check_number, ("ema_decay", self.ema_decay, 0, 1), {"below": True}))
        checks.append((check_count, ("attribution_steps", self.attribution_steps), {}))
        for name in _OPTIONAL_COUNTS:
            if getattr(self, name) is not None:
                checks.append((check_count, (name, getattr(self, name), 1, MOST), {}))
        out = []
        for check, arguments, options in checks:
            try:
                check(*arguments, **options)
            except InvalidConfigError as error:
                out.append(str(error))
        out += self._class_weight_problems() + self._shape_problems() + self._block_problems()
        if self.adversarial and self.noise == "counterfactual":
            out.append("adversarial noise needs noise='gaussian', 'l1' or 'l2'; counterfactuals are not chosen freely.")
        head = self.target_modules
        if head is not None and not (_are_names(head) and len(head) == 1):
            out.append(f"target_modules must name one head; got {head!r}.")
        if self.new_layers is not None and not _are_names(self.new_layers):
            out.append(f"new_layers must be names, as the adapter itself writes them; got {self.new_layers!r}.")
        for name in ("adversarial", "use_basis"):
            if not isinstance(getattr(self, name), bool | None):
                out.append(f"{name} must be True or False; got {getattr(self, name)!r}.")
        return out

    def _class_weight_problems(self) -> list[str]:
        """Turn `class_weights` into a list of numbers; say what is wrong with it."""
        given = self.class_weights
        if given is None or given == "probability":
            return []
        values = list(given) if isinstance(given, list | tuple) else []
        if not any(values) or not all(map(is_finite, values)):
            return [f"class_weights must be finite numbers, not all 0, or 'probability' or None; got {given!r}."]
        classes = len(self.labels) if isinstance(self.labels, list | tuple) else self.num_labels
        if isinstance(classes, int) and len(values) != classes:
            return [f"class_weights needs one number for each of {classes} classes; got {len(values)}."]
        self.class_weights = [float(v) for v in values]
        return []

    def _shape_problems(self) -> list[str]:
        shapes: Any = self.state_shapes
        sizes: list[Any] = list(shapes.values()) if isinstance(shapes, dict) else [None]
        if all(isinstance(size, list | tuple) and all(_is_size(n) for n in size) for size in sizes):
            if all(math.prod(size) <= MOST_ENTRIES for size in sizes):
                return []
            return [f"state_shapes must name at most {MOST_ENTRIES:,} entries per tensor; got {shapes!r:.200}."]
        return [f"state_shapes must be a dict of lists of sizes, as the adapter itself writes it; got {shapes!r:.200}."]

    def _block_problems(self) -> list[str]:
        """Turn `latent_blocks`, lists in JSON, into pairs; say what is wrong with it."""
        given: Any = self.latent_blocks
        if given is None:
            return []
        pairs = [tuple(pair) if isinstance(pair, list | tuple) else () for pair in given] if _is_list(given) else [()]
        formed = all(len(p) == 2 and isinstance(p[0], str) and _is_size(p[1]) and p[1] for p in pairs)
        if pairs and formed and sum(p[1] for p in pairs) <= MOST:
            self.latent_blocks = [(name, width) for name, width in pairs]
            return []
        return [f"latent_blocks must be names and widths, as the adapter itself writes them; got {given!r:.200}."]

    def _label_problems(self) -> list[str]:
        if self.labels is None:
            return []
        if not _are_names(self.labels) or not self.labels:
            return [f"labels must be a list of names of classes; got {self.labels!r:.200}."]
        if len(set(self.labels)) != len(self.labels):
            return [f"labels must be different from each other; got {self.labels}."]
        if self.num_labels not in (None, len(self.labels)):
            return [f"num_labels is {self.num_labels}, but labels names {len(self.labels)} classes; drop one of them."]
        return []

    def _whole_layer_problems(self) -> list[str]:
        """Turn `trained_modules` into a sorted list, or the word for all linear layers; say what is wrong with it."""
        given = self.trained_modules
        if given is None or given == ALL_LINEAR:
            return []
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in names):
            return [f"trained_modules must be names of modules, {ALL_LINEAR!r} or None; got {given!r}."]
        if not names:
            return ["trained_modules must name at least one module, or be None; got none."]
        self.trained_modules = sorted(names)
        return []

    def _encoder_problems(self) -> list[str]:
        """Turn `encoder_adapter` into a private copy of a PEFT configuration; say what is wrong with it."""
        inner: Any = self.encoder_adapter
        if inner is None:
            return []
        if isinstance(inner, dict):
            kind = inner.get("peft_type")
            if not isinstance(kind, str) or kind not in PEFT_TYPE_TO_TUNER_MAPPING:
                return [f"encoder_adapter needs a peft_type that PEFT knows; got {kind!r}."]
            try:
                inner = PeftConfig.from_peft_type(**inner)
            except Exception as error:  # noqa: BLE001 - of its own configurations PEFT checks some, in many ways
                return [f"encoder_adapter is no configuration of {kind} ({type(error).__name__}: {error})."]
        if not isinstance(inner, PeftConfig):
            return [f"encoder_adapter must be a PEFT configuration, its dict or None; got {type(inner).__name__}."]
        name: Any = str(getattr(inner.peft_type, "value", inner.peft_type))  # a key of tables that know enums only
        if inner.is_prompt_learning or inner.is_adaption_prompt:
            return [f"encoder_adapter cannot be prompt learning ({name}); use LoRA, IA3 or another weight adapter."]
        if name in ("AIFS", "ADALORA"):
            why = "an AIFS adapter holds no other" if name == "AIFS" else "it must reallocate ranks after every step"
            return [f"encoder_adapter cannot be {name}: {why}; use LoraConfig."]
        if getattr(PEFT_TYPE_TO_TUNER_MAPPING.get(name), "uses_shared_state", False):
            return [f"encoder_adapter cannot be {name}: it shares state between layers; use LoRA, IA3 or LoHa."]
        wild = [key for key, number in vars(inner).items() if isinstance(number, float) and not math.isfinite(number)]
        if wild:
            return [f"encoder_adapter has numbers that are not finite: {', '.join(wild)}."]
        bias = getattr(inner, "bias", "none")
        if bias != "none":
            return [f"encoder_adapter has bias={bias!r}, which would not be saved; use bias='none'."]
        start = getattr(inner, "init_lora_weights", None)
        if isinstance(start, str) and start.startswith(_CHANGES_BASE):
            return [f"encoder_adapter has init_lora_weights={start!r}, {CHANGED_BASE}; use True, 'gaussian' or 'eva'."]
        self.encoder_adapter = copy.deepcopy(inner)
        return []


# Initialisations of LoRA that take what they put into the adapter out of the base model's weights.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")
CHANGED_BASE = (
    "which changes the base model's weights: disabled or unloaded it would not be the base model any more, and an "
    "adapter loaded onto the original one would not be the one that was saved"
)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _jsonable(value: Any) -> Any:
    """Sets as sorted lists and enums as their values, at any depth."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(_jsonable(item) for item in value)
    return [_jsonable(item) for item in value] if isinstance(value, list | tuple) else value
