"""Latents on disk, so that a second run with the same encoder on the same data need not encode.

A folder holds one sub-folder per split, named by a digest of everything that the latents depend on: every weight of the
encoder, the bytes of every picture or text, and how inputs are prepared. A changed pixel or weight is therefore another
entry, never a wrong one. Entries are written aside and renamed, so that several runs may share a folder; they are read
memory-mapped, after their own digest was compared.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from aifs_peft.data.images import undecoded
from aifs_peft.environment import installed_version
from aifs_peft.errors import InvalidInputError
from aifs_peft.experiments.prepare import ImageEncoder, PreparedDataset, TextEncoder, encode_features
from aifs_peft.models.encoders import base_of
from aifs_peft.training.checkpoint_folders import to_disk
from aifs_peft.training.parallel import on_main
from aifs_peft.tuner.layer import AIFSLayer

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)
FORMAT = 1
LATENTS, MANIFEST = "latents.npy", "manifest.json"
CHUNK = 1 << 24  # bytes of latents that are hashed at once
NOT_WRITABLE = "latents cannot be kept in {folder}: {reason}. Name another folder, or leave the latent cache out"
DAMAGED = "the latent cache {folder} is damaged ({reason}); these latents are made again"
RANDOM = (
    "latents are not kept in {folder}: the rows are changed when they are read (set_transform, or an encoder of your "
    "own), so two passes need not give the same"
)


@dataclass(frozen=True)
class LatentCache:
    """A folder of latents that outlives a run.

    Args:
        folder: made when first written to.

    Example:
        >>> import tempfile
        >>> from datasets import Dataset
        >>> rows = Dataset.from_dict({"features": [[0.0, 1.0], [2.0, 3.0]], "label": [0, 1]})
        >>> data, model, passes = PreparedDataset(rows, encode_features), nn.Linear(2, 2), []
        >>> def encode():
        ...     passes.append("one pass")
        ...     return torch.eye(2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = LatentCache(Path(folder))
        ...     first, second = cache.get(model, data, encode), cache.get(model, data, encode)
        ...     equal = bool((first == second).all())
        >>> equal, passes
        (True, ['one pass'])
    """

    folder: Path

    def get(
        self,
        model: nn.Module,
        data: PreparedDataset,
        encode: Callable[[], Tensor],
        accelerator: Accelerator | None = None,
        head: str = "",
    ) -> Tensor:
        """Latents from the folder, or made and put there.

        Args:
            model: that encodes; its head is no part of the key.
            data: that is encoded.
            encode: makes the latents, `(n, dim)` float32, the same on every process.
            accelerator: of a run with several processes; the first one writes.
            head: name of the model's head, which comes after the latents; an AIFS layer is found without it.

        Returns:
            `(n, dim)` float32 on the CPU; what is changed in it does not reach the folder.

        Raises:
            InvalidInputError: the folder cannot be written.
        """
        if not _repeats(data):
            logger.warning(RANDOM.format(folder=self.folder))
            return encode()
        entry = self.folder / latent_key(model, data, head)
        # Asked and written by the first process; all of them go on alike, also where it fails.
        first = (lambda work: work()) if accelerator is None else partial(on_main, accelerator)
        if not first(lambda: _is_whole(entry, len(data))):
            Z = encode()
            first(lambda: _write(entry, Z.numpy()))
            return Z
        # Copy-on-write: processes share the file's pages, and nothing written to the tensor goes back.
        return torch.from_numpy(np.load(entry / LATENTS, mmap_mode="c", allow_pickle=False))


def _repeats(data: PreparedDataset) -> bool:
    """Whether two passes over the data give the same inputs, and what prepares them can be told apart."""
    known = isinstance(data.encode, ImageEncoder | TextEncoder) or data.encode is encode_features
    return known and data.source.format["type"] != "custom"


def latent_key(model: nn.Module, data: PreparedDataset, head: str = "") -> str:
    """A digest of everything that latents depend on: weights, structure, inputs and their preparation.

    Args:
        model: that encodes. Of an AIFS layer only how it pools and joins counts, since its head comes later.
        data: that is encoded.
        head: name of the model's head, which is no part of the key; an AIFS layer is found without it.

    Returns:
        32 hexadecimal digits.
    """
    digest = blake2b(digest_size=16)
    for part in (*_model_parts(model, head), *_preparation(data), *_rows(data)):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _model_parts(model: nn.Module, head: str) -> Iterator[bytes]:
    """Structure and weights of the encoder."""
    yield f"{FORMAT} torch {torch.__version__} transformers {installed_version('transformers')}".encode()
    layers = {name: module for name, module in model.named_modules() if isinstance(module, AIFSLayer)}
    for name, layer in layers.items():
        yield f"{name} pool {layer.aifs_spec[layer.adapter].pool}".encode()
        if layer.blocks is not None:
            yield _json(layer.block_names)
            yield from map(_bytes, layer.blocks.buffers())
    yield repr(type(base_of(model))).encode()
    config: Any = getattr(base_of(model), "config", None)
    if hasattr(config, "to_dict"):
        yield _json({k: v for k, v in config.to_dict().items() if k not in _NOT_COMPUTED})
    heads = tuple(f"{name}." for name in (*layers, *([head] if head else [])))
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if not name.startswith(heads):
            yield f"{name} {value.dtype} {tuple(value.shape)}".encode()
            yield _bytes(value)


# Of a configuration: where a model came from and how its classes are called changes no latent.
_NOT_COMPUTED = ("_name_or_path", "id2label", "label2id", "transformers_version", "problem_type", "architectures")


def _preparation(data: PreparedDataset) -> Iterator[bytes]:
    """How rows become inputs of the model."""
    encode = data.encode
    if isinstance(encode, TextEncoder):
        tokenizer = encode.tokenizer
        yield _json({"max_length": encode.max_length, "tokenizer": type(tokenizer).__name__})
        backend = getattr(tokenizer, "backend_tokenizer", None)
        yield backend.to_str().encode() if backend is not None else _json(tokenizer.get_vocab())
        yield _json(getattr(tokenizer, "special_tokens_map", {}))
    elif isinstance(encode, ImageEncoder):
        yield type(encode.processor).__name__.encode()
        yield _json(encode.processor.to_dict())


def _rows(data: PreparedDataset) -> Iterator[bytes]:
    """The inputs as they lie in the data set, before they are prepared."""
    yield data.column.encode()
    yield from _bytes_of(data.source, data.column)
    if data.beside is not None:
        yield f"beside {tuple(data.beside.shape)}".encode()
        yield _bytes(data.beside)


def input_bytes(rows: Any, column: str) -> Iterator[bytes]:
    """The inputs of a split as bytes, one by one, for a digest of the data: pictures as files hold them.

    Args:
        rows: a split.
        column: of the inputs: `image`, `text` or `features`.

    Example:
        >>> from datasets import Dataset
        >>> list(input_bytes(Dataset.from_dict({"text": ["a", "b"]}), "text"))
        [b'a', b'b']
    """
    if column == "features":  # as arrays: lists of numbers are many times slower
        return _bytes_of(rows.with_format("numpy", columns=[column]), column)
    return _bytes_of(undecoded(rows, column) if column == "image" else rows, column)


def _bytes_of(rows: Any, column: str) -> Iterator[bytes]:
    for start in range(0, len(rows), 256):
        for value in rows[start : start + 256][column]:
            yield _input_bytes(value)


def _input_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict):  # a picture that is not decoded: its bytes, or the file that holds them
        return value["bytes"] if value.get("bytes") is not None else Path(value["path"]).read_bytes()
    return np.ascontiguousarray(np.asarray(value, dtype=np.float32)).tobytes()


def _bytes(value: Tensor) -> bytes:
    """A tensor's memory; through integers, since NumPy has no bfloat16."""
    flat = value.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()


def _is_whole(entry: Path, rows: int) -> bool:
    """Whether an entry is there and is what was written; a damaged one is told, and taken away."""
    if not entry.is_dir():
        return False
    try:
        manifest = json.loads((entry / MANIFEST).read_text())
        Z = np.load(entry / LATENTS, mmap_mode="r", allow_pickle=False)
        if len(Z) != rows or Z.dtype != np.float32 or Z.ndim != 2:
            reason = f"its latents are {Z.dtype} {Z.shape}, the data set has {rows} rows"
        elif _digest(Z) != manifest["blake2b"]:
            reason = f"{LATENTS} is not what was written"
        else:
            return True
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        reason = " ".join(str(error).split())
    logger.warning(DAMAGED.format(folder=entry, reason=reason))
    shutil.rmtree(entry, ignore_errors=True)
    return False


def _digest(Z: np.ndarray[Any, Any]) -> str:
    digest = blake2b(digest_size=16)
    step = max(1, CHUNK // max(1, Z.shape[1] * Z.itemsize))
    for start in range(0, len(Z), step):
        digest.update(np.ascontiguousarray(Z[start : start + step]).tobytes())
    return digest.hexdigest()


def _write(entry: Path, Z: np.ndarray[Any, Any]) -> None:
    """Write an entry aside and give it its name; where another run was first, its entry stays."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=entry.parent))
        try:
            np.save(aside / LATENTS, Z, allow_pickle=False)
            manifest = {"format": FORMAT, "rows": len(Z), "dim": Z.shape[1], "blake2b": _digest(Z)}
            (aside / MANIFEST).write_text(json.dumps(manifest, indent=1))
            aside.chmod(0o755)
            for path in (aside / LATENTS, aside / MANIFEST, aside):
                to_disk(path)
            if not entry.exists():
                aside.rename(entry)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        if entry.is_dir():  # another run gave its entry this name meanwhile
            return
        raise InvalidInputError(NOT_WRITABLE.format(folder=entry.parent, reason=error.strerror or error)) from error
