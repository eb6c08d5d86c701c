"""What a run is: model, data set, adapter, and what its result is compared with. Needs neither torch nor PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from aifs_peft._checks import check_choice, check_count, check_number
from aifs_peft.errors import InvalidConfigError

if TYPE_CHECKING:
    from peft import PeftConfig

ADAPTERS = ("none", "lora", "dora", "rslora", "ia3", "full")
QUANTIZATIONS = ("none", "4bit", "8bit")
HEADS = ("copy", "linear", "mlp")
LATENTS = ("last", "multi")
BASELINES = ("auto", "erm", "none")
FULL_QUANTISED = (
    "adapter='full' trains whole layers, which quantization={given!r} stores as integers: use adapter='lora'."
)
NOTHING_TO_TUNE = (
    "The model 'identity' has no layers between its input and its head; adapter was {given!r}: pass 'none'."
)

_WHAT, _OWN, _ADAPTER, _RESULT = "Model and data", "Your own data", "Adapter", "Result"


def _option(default: Any, group: str, text: str, **bounds: Any) -> Any:
    """A field whose metadata say what it is for, which values it takes, and under which heading help lists it."""
    return field(default=default, metadata={"help": text, "group": group, **bounds})


@dataclass
class FinetuneSpec:
    """What to fine-tune on what; how to train is in `AIFSTrainingArguments`.

    Args:
        model: Hub name, local directory, or `"tiny_clip"`, the encoder that ships with this package. For tables:
            `"mlp"`, trained from scratch, or `"identity"` where the features are latents already. `None` chooses
            `"tiny_clip"` for images and `"mlp"` for features.
        revision: branch, tag or commit of the model on the Hub.
        trust_remote_code: run model code from the Hub. Off unless asked for.
        dataset: a name from `aifs_peft.data.names()`; or your own data as a table, a folder or a Hub name
            (see `aifs_peft.data.load_own`).
        data_dir: folder of a local copy in the data set's official layout.
        dataset_options: options of the data set's `load`, such as `{"aligned_share": 0.95}`.
        streaming: read the training split from its beginning in each epoch, and hold its labels and metadata alone; for
            data that come with their splits, see `aifs_peft.data.own.streaming`.
        adapter: how the encoder is tuned: `none` (frozen), `lora`, `dora`, `rslora`, `ia3`, or `full` (every linear
            layer is trained whole and saved in the adapter).
        lora_r: rank of LoRA.
        lora_alpha: scale of LoRA.
        lora_dropout: dropout of LoRA.
        target_modules: module names the encoder adapter goes to; `None` chooses by architecture.
        quantization: `none`, `4bit` or `8bit` (bitsandbytes).
        head: the classifier that is trained: `copy` (structure of the model's own), `linear`, or `mlp` with one hidden
            layer, which some methods need on a frozen encoder.
        latents: what the classifier reads: `last`, or `multi`, blocks of the encoder beside it, which shows weaker
            shortcuts; see `AIFSConfig`.
        max_length: tokens per text.
        image: your own data: the column of images or their paths; `None` looks for one.
        text: your own data: the column of texts.
        features: your own data: the column of latents, several columns of numbers, or `["all"]` of them.
        fuse: columns of the table that the model reads beside each picture or text (late fusion, see
            `aifs_peft.models.FusedClassifier`): numbers, or categories, which become one indicator per value. `None`
            reads the picture or text alone.
        label: your own data: the column of classes.
        attribute: your own data: the column of a suspected attribute (scanner, site, ...). It is read to cut the data
            and to evaluate; no method sees it in training, except the oracles.
        split: your own data: how missing splits are cut, `stratified` (by label and attribute), `random` or `none` (all
            rows are `train`); or the name of the column that says which split a row belongs to.
        test_share: your own data: share of the examples in the test split, in (0, 1), or `"balanced"`: as many of
            each combination of label and attribute. `None` takes the loader's.
        unlabelled: your own data, as a table, a folder or a Hub name: examples in which a shortcut goes with the label
            less, read with the same options as `dataset`; labels in it are ignored. See `discover(unlabelled=)`.
        baseline: the plain counterpart of the run: `auto`, `erm` or `none`, see `aifs_peft.experiments.baseline`.
        latent_cache: folder in which latents of the encoder before tuning are kept, so that a second run with the same
            encoder on the same data does not encode them again; `None` keeps none.
        audit: look for a shortcut in the training set as it is before training, for the record and the report.
        n_boot: bootstrap replicates for the intervals that have no exact form; 0 leaves them out.

    Raises:
        InvalidConfigError: a value outside its range or choices, named.

    Example:
        >>> FinetuneSpec(adapter="none").dataset
        'digits_on_scenes'
        >>> FinetuneSpec(adapter="lroa")
        Traceback (most recent call last):
        ...
        aifs_peft.errors.InvalidConfigError: adapter must be one of 'none', ...; got 'lroa' (did you mean 'lora'?).
    """

    model: str | None = _option(
        None, _WHAT,
        "Hub name or local folder of the model; 'tiny_clip' ships with this package. For tables: 'mlp' (from scratch) "
        "or 'identity' (the features are latents). Default: tiny_clip for images, mlp for tables",
    )  # fmt: skip
    revision: str | None = _option(None, _WHAT, "branch, tag or commit of the model on the Hub")
    trust_remote_code: bool = _option(False, _WHAT, "run model code that comes from the Hub")
    dataset: str = _option(
        "digits_on_scenes", _WHAT, "a known data set, or your own data: a table, a folder, an .npz, a Hub name"
    )
    data_dir: str | None = _option(None, _WHAT, "folder of a local copy of a known data set")
    dataset_options: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "options of the data set, a JSON object such as '{\"aligned_share\": 0.9}'", "group": _WHAT},
    )
    streaming: bool = _option(
        False, _WHAT, "read the training split from its beginning in each epoch and never hold it; own data come as a "
        "folder or a Hub name with the splits train, validation and test",
    )  # fmt: skip
    adapter: str = _option(
        "lora", _ADAPTER, "how the encoder is tuned; none keeps it frozen and trains the head alone", choices=ADAPTERS
    )
    lora_r: int = _option(8, _ADAPTER, "rank of LoRA", low=1)
    lora_alpha: int = _option(16, _ADAPTER, "scale of LoRA", low=1)
    lora_dropout: float = _option(0.0, _ADAPTER, "dropout of LoRA", low=0.0, high=1.0, below=True)
    target_modules: list[str] | None = _option(  # noqa: RUF009 - a field, as the others
        None, _ADAPTER, "names of the modules that are tuned; chosen by architecture when left out"
    )
    quantization: str = _option("none", _ADAPTER, "precision of the frozen weights", choices=QUANTIZATIONS)
    head: str = _option(
        "copy", _ADAPTER, "the classifier that is trained: like the model's own, linear, or one hidden layer",
        choices=HEADS,
    )  # fmt: skip
    latents: str = _option(
        "last", _ADAPTER,
        "layers that the classifier reads: last, or multi (blocks at three depths, too), for weak shortcuts",
        choices=LATENTS,
    )  # fmt: skip
    max_length: int = _option(128, _WHAT, "tokens per text", low=1)
    image: str | None = _option(None, _OWN, "column of images, or of their paths")
    text: str | None = _option(None, _OWN, "column of texts")
    features: list[str] | None = _option(  # noqa: RUF009 - a field, as the others
        None, _OWN, "column of latents, or columns of numbers; 'all': every column of numbers"
    )
    fuse: list[str] | None = _option(  # noqa: RUF009 - a field, as the others
        None, _OWN, "columns of the table that the model reads beside each picture or text: numbers or categories"
    )
    label: str | None = _option(None, _OWN, "column of classes")
    attribute: str | None = _option(
        None, _OWN, "column of a suspected attribute (scanner, site): read to cut the data and to evaluate"
    )
    split: str = _option(
        "stratified", _OWN,
        "how splits that the data lack are cut: stratified (by label and attribute), random, none; or the name of the "
        "column that says which split a row belongs to",
    )  # fmt: skip
    test_share: float | str | None = _option(
        None, _OWN, "share of the test split, in (0, 1), or 'balanced': equally many of each label and attribute",
        low=0.0, high=1.0, above=True, below=True, words=("balanced",),
    )  # fmt: skip
    unlabelled: str | None = _option(
        None, _OWN,
        "examples in which a shortcut goes with the label less, to find weak ones by: a table, a folder, an .npz; "
        "labels in it are ignored",
    )  # fmt: skip
    baseline: str = _option(
        "auto", _RESULT,
        "what the run is compared with: auto (plain training of a head on latents of the untuned encoder), erm (plain "
        "training of the same encoder, adapter and head), none",
        choices=BASELINES,
    )  # fmt: skip
    latent_cache: str | None = _option(
        None, _RESULT, "folder that keeps latents of the untuned encoder for later runs on the same data"
    )
    audit: bool = _option(True, _RESULT, "look for a shortcut in the training set before training, for the report")
    n_boot: int = _option(0, _RESULT, "bootstrap replicates for intervals that have no exact form", low=0)

    def __post_init__(self) -> None:
        for entry in fields(self):
            _check_field(entry.name, getattr(self, entry.name), entry.metadata)

    def encoder_adapter(self) -> PeftConfig | None:
        """The PEFT configuration that tunes the encoder, `None` when it stays frozen or is trained whole.

        Raises:
            InvalidConfigError: an adapter that does not go with the model or its quantization.
        """
        from peft import IA3Config, LoraConfig

        if self.model == "identity" and self.adapter != "none":
            raise InvalidConfigError(NOTHING_TO_TUNE.format(given=self.adapter))
        if self.adapter == "full" and self.quantization != "none":
            raise InvalidConfigError(FULL_QUANTISED.format(given=self.quantization))
        if self.adapter in ("none", "full"):
            return None
        if self.adapter == "ia3":
            return IA3Config(target_modules=self.target_modules)
        return LoraConfig(
            r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=self.target_modules,
            use_dora=self.adapter == "dora",
            use_rslora=self.adapter == "rslora",
        )

    def trained_modules(self) -> list[str] | str | None:
        """Modules of the encoder that are trained whole, `None` for none."""
        return (self.target_modules or "all-linear") if self.adapter == "full" else None


def _check_field(name: str, value: Any, rules: Mapping[str, Any]) -> None:
    """Refuse a value outside the choices or bounds that the field's metadata state."""
    if "choices" in rules:
        check_choice(name, value, rules["choices"])
    if "low" in rules and value is not None and value not in rules.get("words", ()):
        if isinstance(rules["low"], float):
            check_number(name, value, rules["low"], rules["high"], above=rules.get("above", False), below=True)
        else:
            check_count(name, value, rules["low"])
