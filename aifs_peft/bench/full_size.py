"""A dry run at full size: the real architecture with random weights, two steps, what a whole training would take."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers import TrainerCallback

from aifs_peft.bench.measuring import measured
from aifs_peft.data.doctor import DataReport, check_data_set
from aifs_peft.errors import AIFSError, InvalidConfigError
from aifs_peft.experiments.build import adapter_config, make_trainer
from aifs_peft.experiments.loading import own_options
from aifs_peft.training import AIFSTrainingArguments

if TYPE_CHECKING:
    from aifs_peft.experiments.spec import FinetuneSpec

# Published numbers of training and validation examples, and of classes.
SIZES: dict[str, tuple[int, int, int]] = {
    "celeba": (162_770, 19_867, 2),
    "waterbirds": (4_795, 1_199, 2),
    "civilcomments": (269_038, 45_180, 2),
    "civilcomments_coarse": (269_038, 45_180, 2),
    "multinli": (206_175, 82_462, 3),
}
STEPS = 2
UNKNOWN = "a dry run knows the architectures {known}; got model={given!r}. Others are tried by a short training itself"
NO_SIZE = "a dry run knows how large {known} are; got dataset={given!r}: give the numbers of examples"


def _vit_b16(classes: int) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig()
    config.num_labels = classes
    return ViTForImageClassification(config)


def _roberta_base(classes: int) -> nn.Module:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
    config.num_labels = classes
    return RobertaForSequenceClassification(config)


def _clip(width: int, layers: int, heads: int, patch: int, projection: int) -> Callable[[int], nn.Module]:
    def build(classes: int) -> nn.Module:
        from transformers import CLIPConfig, CLIPForImageClassification, CLIPTextConfig, CLIPVisionConfig

        vision = CLIPVisionConfig(
            hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads,
            patch_size=patch, image_size=224, projection_dim=projection,
        )  # fmt: skip
        text = CLIPTextConfig(num_hidden_layers=1, projection_dim=projection)  # the classifier reads the images alone
        config = CLIPConfig(vision_config=vision.to_dict(), text_config=text.to_dict(), projection_dim=projection)
        config.num_labels = classes
        return CLIPForImageClassification(config)

    return build


# Name on the Hub -> input, and what builds it with random weights.
ARCHITECTURES: dict[str, tuple[str, Callable[[int], nn.Module]]] = {
    "google/vit-base-patch16-224-in21k": ("image", _vit_b16),
    "FacebookAI/roberta-base": ("text", _roberta_base),
    "openai/clip-vit-base-patch16": ("image", _clip(768, 12, 12, 16, 512)),
    "openai/clip-vit-large-patch14": ("image", _clip(1024, 24, 16, 14, 768)),
}


@dataclass(frozen=True)
class Forecast:
    """What a training would take.

    Args:
        parameters: of the model with its adapter.
        trained: of those, how many are trained.
        seconds_per_example: of a training step, on this machine.
        cpu_seconds_per_example: the same of the processors, all threads together, which other work changes little.
        fixed_bytes: of memory: weights, gradients, optimizer.
        bytes_per_example: of memory, for each example of a batch.
        examples: of the training split: of the data folder where it can be read, else as published.
        published: examples of the published training split.
        batch: examples per step and device.
        epochs: at most.
        data: what was found of the data folder; None where nothing was looked at, with the reason in `data_problem`.
        data_problem: why not; empty where it was.
        device: on which the steps were taken.
    """

    parameters: int
    trained: int
    seconds_per_example: float
    cpu_seconds_per_example: float
    fixed_bytes: float
    bytes_per_example: float
    examples: int
    published: int
    batch: int
    epochs: float
    data: DataReport | None
    data_problem: str
    device: str

    @property
    def seconds_per_epoch(self) -> float:
        """Of training alone."""
        return self.seconds_per_example * self.examples

    @property
    def peak_bytes(self) -> float:
        """Of a step with a whole batch."""
        return self.fixed_bytes + self.bytes_per_example * self.batch

    @property
    def complete(self) -> bool:
        """Whether the data folder can be used as it is."""
        return self.data is not None and self.data.ok

    def describe(self) -> str:
        """Lines for people."""
        hours = self.seconds_per_epoch / 3600
        lines = [
            f"parameters: {self.parameters / 1e6:.1f} M, trained: {self.trained / 1e6:.2f} M",
            f"a step on {self.device}: {1000 * self.seconds_per_example:.1f} ms per example; an epoch of "
            f"{self.examples:,} examples: {hours:.2f} h, for {self.epochs:g} epochs {self.epochs * hours:.1f} h",
            f"memory at a batch of {self.batch}: about {self.peak_bytes / 1e9:.1f} GB "
            f"({self.fixed_bytes / 1e9:.2f} GB and {self.bytes_per_example / 1e6:.0f} MB per example)",
        ]
        if self.complete:
            fewer = f", but its training split has {self.examples:,} examples, and the published one {self.published:,}"
            return "\n".join([*lines, f"data: complete{fewer if self.examples != self.published else ''}"])
        problems = [self.data_problem] if self.data is None else list(self.data.problems)
        return "\n".join([*lines, *(f"data: {problem}" for problem in problems)])


def dry_run(
    spec: FinetuneSpec, args: AIFSTrainingArguments, *, batches: tuple[int, int] = (1, 4), check_data: bool = True
) -> Forecast:
    """Build the architecture of a run with random weights, take two steps at two batch sizes, and extrapolate.

    The method finds nothing in a handful of random examples, so its own share of a step (docs/performance.md) and
    what it does once are not in the forecast; neither are evaluation and the decoding of pictures.

    Args:
        spec: of the run; its model is one of `ARCHITECTURES`.
        args: of the run; left as they are.
        batches: two different sizes; memory and time of the whole batch are their straight line.
        check_data: look at the data folder.

    Raises:
        InvalidConfigError: an unknown architecture or data set.

    Returns:
        The forecast for one device like this one.
    """
    if spec.model not in ARCHITECTURES:
        raise InvalidConfigError(UNKNOWN.format(known=", ".join(ARCHITECTURES), given=spec.model))
    name = next((n for n in sorted(SIZES, key=len, reverse=True) if n in spec.dataset), None)
    if name is None:
        raise InvalidConfigError(NO_SIZE.format(known=", ".join(SIZES), given=spec.dataset))
    examples, _, classes = SIZES[name]
    # The first run also loads what every run needs, which no batch is to be blamed for.
    _, *taken = [_steps(spec, args, size, classes) for size in (batches[0], *batches)]
    (size, other), (first, second) = batches, taken
    slope = max(0.0, (second.memory - first.memory) / (other - size))
    report, problem = _data(spec) if check_data else (None, "not looked at")
    return Forecast(
        first.parameters,
        first.trained,
        second.seconds / other,
        second.cpu_seconds / other,
        max(first.memory - slope * size, 0.0) + first.weights,
        slope,
        report.examples.get("train", examples) if report else examples,
        examples,
        args.per_device_train_batch_size,
        float(args.num_train_epochs),
        report,
        problem,
        "CUDA" if torch.cuda.is_available() else "the CPU",
    )


@dataclass(frozen=True)
class _Taken:
    """What two steps took: memory beyond the weights, and the last step, by the clock and of the processors."""

    seconds: float
    cpu_seconds: float
    memory: float
    weights: float
    parameters: int
    trained: int


class _LastStep(TrainerCallback):
    """Times the last step; the first one also makes buffers."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self._started, self._worked = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self._started
        self.cpu_seconds = time.process_time() - self._worked


class _Random(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Random inputs of the right shape."""

    def __init__(self, modality: str, length: int, examples: int, classes: int) -> None:
        generator = torch.Generator().manual_seed(0)
        if modality == "image":
            self.inputs = {"pixel_values": torch.randn(examples, 3, 224, 224, generator=generator)}
        else:
            tokens = torch.randint(5, 50_000, (examples, length), generator=generator)
            self.inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        self.labels = torch.arange(examples) % classes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {**{name: values[index] for name, values in self.inputs.items()}, "labels": self.labels[index]}


@contextmanager
def _unsaid() -> Iterator[None]:
    """Without what a method says of data that are random: nothing can be found in them."""
    logger = logging.getLogger("aifs_peft.methods")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _steps(spec: FinetuneSpec, args: AIFSTrainingArguments, size: int, classes: int) -> _Taken:
    """Two steps of a batch size."""
    modality, build = ARCHITECTURES[spec.model or ""]
    method, cuda = args.method or "aifs", torch.cuda.is_available()
    model = get_peft_model(build(classes), adapter_config(method, spec))
    data = _Random(modality, spec.max_length, STEPS * size, classes)
    with tempfile.TemporaryDirectory() as folder:
        small = AIFSTrainingArguments(
            output_dir=folder, method=method, method_options=args.method_options, max_steps=STEPS,
            per_device_train_batch_size=size, learning_rate=args.learning_rate, save_strategy="no",
            logging_strategy="no", disable_tqdm=True, report_to="none", use_cpu=not cuda, bf16=bool(args.bf16 and cuda),
            dataloader_pin_memory=False,
        )  # fmt: skip
        last = _LastStep()
        trainer = make_trainer(model, small, data, None, [last])
        with _unsaid(), measured() as took:
            trainer.train()
    counts = [(value.numel(), value.requires_grad, value.element_size()) for value in model.parameters()]
    weights = 0.0 if cuda else float(sum(n * size_of for n, _, size_of in counts))  # those on the device are counted
    memory = float(took.peak_memory_bytes or 0)
    parameters, trained = sum(n for n, _, _ in counts), sum(n for n, on, _ in counts if on)
    return _Taken(last.seconds, last.cpu_seconds, memory, weights, parameters, trained)


def _data(spec: FinetuneSpec) -> tuple[DataReport | None, str]:
    """What there is to say of the data folder."""
    try:
        return check_data_set(spec.dataset, spec.data_dir, **{**own_options(spec), **spec.dataset_options}), ""
    except AIFSError as error:
        return None, " ".join(str(error).split())
