"""`AIFSModel`: puts an AIFS layer in a base model's head, and the encoder's adapter beside it."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent.heads import head_sizes
from aifs_peft.tuner._peft import AuxiliaryTrainingWrapper, BaseTunerLayer, Tuner
from aifs_peft.tuner.blocks import MULTI, check_blocks, find_blocks
from aifs_peft.tuner.config import AIFSConfig
from aifs_peft.tuner.last_token import picks_last_token
from aifs_peft.tuner.layer import AIFSLayer, find_aifs_layer
from aifs_peft.tuner.merging import check_mergeable
from aifs_peft.tuner.modes import freeze_modes
from aifs_peft.tuner.nested import as_configuration_error, inject_nested
from aifs_peft.tuner.packed import unpack
from aifs_peft.tuner.reentrant import let_gradients_through, refuse_reentrant
from aifs_peft.tuner.rows import rows_by_adapter
from aifs_peft.tuner.saved import check_tensors
from aifs_peft.tuner.targets import find_head, resolve_encoder
from aifs_peft.tuner.trained_copy import TrainedCopy
from aifs_peft.tuner.whole_layers import find_new_layers, named_layers

if TYPE_CHECKING:
    from aifs_peft.explain import Explanation

NOT_MERGED = (
    'an adapter with latents="multi" cannot be merged: its head reads blocks inside the encoder, and a base model '
    'feeds its head the last latent alone. Use it unmerged, or train one with latents="last".'
)


class AIFSModel(Tuner):
    """The tuner behind `get_peft_model(model, AIFSConfig(...))`; users meet it as `peft_model.base_model`.

    Example:
        >>> from peft import get_peft_model
        >>> from aifs_peft.models import LatentClassifier, TabularEncoder
        >>> base = LatentClassifier(TabularEncoder(4, 8), num_labels=2)
        >>> model = get_peft_model(base, AIFSConfig())
        >>> sorted(n for n, p in model.named_parameters() if p.requires_grad)[0]
        'base_model.model.classifier.aifs_head.default.bias'
    """

    prefix = "aifs_"

    def inject_adapter(
        self,
        model: nn.Module,
        adapter_name: str,
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
        state_dict: dict[str, Tensor] | None = None,  # noqa: ARG002 - see below
    ) -> None:
        """Inject the encoder's adapter, then wrap the head. PEFT calls this; its signature is PEFT's.

        Raises:
            HeadError: if the head cannot be found or wrapped. The model is unchanged then.
            InvalidConfigError: if the encoder's adapter touches the head.
        """
        # A copy: the caller's configuration stays as it was and can be used for another model.
        config = copy.deepcopy(self._config(adapter_name))
        self.peft_config[adapter_name] = config
        head = find_head(model, config)
        config.target_modules = [head]
        if config.num_labels is None:
            module = model.get_submodule(head)
            config.num_labels = module.out_features if isinstance(module, AIFSLayer) else head_sizes(module)[1]
        picks = not isinstance(model.get_submodule(head), AIFSLayer) and picks_last_token(model, head)
        config.latent_blocks = self._latent_blocks(model, head, config)
        config.new_layers = find_new_layers(model, head, config)
        self._whole_layers = [*config.new_layers, *named_layers(model, head, config)]
        if config.nested is not None:
            with as_configuration_error(config.nested):
                resolve_encoder(model, head, config.nested, self._whole_layers)
                config.nested.inference_mode = config.inference_mode
                inject_nested(model, config.nested, adapter_name, low_cpu_mem_usage)
        # No state dict: the head's place is known, and PEFT would look for it by a prefix.
        super().inject_adapter(
            model, adapter_name, autocast_adapter_dtype=autocast_adapter_dtype, low_cpu_mem_usage=low_cpu_mem_usage
        )
        layer = find_aifs_layer(model)
        if picks:
            layer.pick_last_token(model)
        layer.read_blocks(model)  # after both, so that blocks are heard through whatever wraps them
        if config.inference_mode:
            layer.expect_weights(adapter_name, model)
        self._apply_labels(enabled=True)

    @staticmethod
    def _latent_blocks(model: nn.Module, head: str, config: AIFSConfig) -> list[tuple[str, int]] | None:
        """The blocks that an adapter reads: those that it was saved with, or found by a trial."""
        if config.latents != MULTI:
            return None
        if config.latent_blocks is None:
            return find_blocks(model, head)
        check_blocks(model, [name for name, _ in config.latent_blocks])
        return config.latent_blocks

    def _config(self, adapter_name: str) -> AIFSConfig:
        config = self.peft_config[adapter_name]
        assert isinstance(config, AIFSConfig)  # noqa: S101 - for the type checker; PEFT holds one type per tuner
        return config

    def is_target(self, config: AIFSConfig, key: str) -> bool:
        """Whether `key` is the full name of the head, or of a layer that is trained whole."""
        return [key] == config.target_modules or key in self._whole_layers

    def place_layer(self, config: AIFSConfig, adapter_name: str, module: nn.Module, key: str) -> nn.Module:
        """A new layer around the head or a layer trained whole, or the one that is there, with one more adapter."""
        if [key] == config.target_modules:
            if isinstance(module, AIFSLayer):
                module.update_layer(adapter_name, config)
                return module
            return AIFSLayer(module, adapter_name, config)
        is_new = key in (config.new_layers or ())
        if isinstance(module, TrainedCopy):
            module.update_layer(adapter_name, is_new=is_new, inference_mode=config.inference_mode)
            return module
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            raise InvalidConfigError(
                f"{key!r} carries a {type(module).__name__} of another adapter, so it cannot be trained whole; load "
                "the base model anew for this adapter, or leave that layer out of trained_modules."
            )
        return TrainedCopy(module, adapter_name, is_new=is_new, inference_mode=config.inference_mode)

    @classmethod
    def saved_key(cls, key: str, adapter_name: str) -> str | None:
        """`...aifs_head.NAME.dense.weight` without the adapter's name; None for keys of other layers."""
        found = re.match(rf"^(.*\.aifs_[a-z]+)\.{re.escape(adapter_name)}(\..*)?$", key)
        return found.group(1) + (found.group(2) or "") if found else None

    @classmethod
    def check_saved(cls, model: nn.Module, adapter_name: str, tensors: dict[str, Tensor]) -> None:
        """Refuse a checkpoint of another configuration.

        Args:
            model: with the adapter injected.
            adapter_name: its name.
            tensors: what was saved, by its key in the model.

        Raises:
            CheckpointMismatchError: naming missing, unknown and differently shaped tensors, and those that hold no
                finite numbers.
        """
        check_tensors(model, adapter_name, tensors)
        find_aifs_layer(model).has_weights(adapter_name)

    def rows_by_adapter(self, names: list[str]) -> AbstractContextManager[None]:
        """A context in which row `i` of a batch goes through adapter `names[i]`; `"__base__"` is the base model.

        Raises:
            InvalidInputError: in training mode, for a merged or unknown adapter, for adapters with different numbers of
                classes, or where an encoder's adapter cannot tell rows apart.
        """
        return rows_by_adapter(self, self.peft_config, names)

    def delete_adapter(self, adapter_name: str) -> None:
        """Take one adapter out; the others stay."""
        super().delete_adapter(adapter_name)
        find_aifs_layer(self.model).read_blocks(self.model)

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Make one adapter active, and its class names the model's."""
        super().set_adapter(adapter_name, inference_mode=inference_mode)
        self._apply_labels(enabled=True)

    def enable_adapter_layers(self) -> None:
        """Use the adapters again."""
        super().enable_adapter_layers()
        self._apply_labels(enabled=True)

    def disable_adapter_layers(self) -> None:
        """Behave exactly like the base model, number of classes included."""
        super().disable_adapter_layers()
        self._apply_labels(enabled=False)

    def before_unload(self, *, merge: bool) -> None:
        """The class names of the merged head stay with the base model; an unloaded model gets its own back."""
        if merge:
            self._refuse_merging_blocks(None)
            check_mergeable(self.model)
        find_aifs_layer(self.model).stop_reading()
        self._apply_labels(enabled=merge)

    def _refuse_merging_blocks(self, adapter_names: list[str] | None) -> None:
        """A base model feeds its head the last latent alone."""
        names = self.active_adapters if adapter_names is None else adapter_names
        if any(name in self.peft_config and self._config(name).latents == MULTI for name in names):
            raise InvalidConfigError(NOT_MERGED)

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Merge in place, so that the model computes with one weight per layer; `unmerge_adapter` takes it back.

        Args:
            adapter_names: the adapter to merge; None takes the active one.
            safe_merge: refuse weights that are not finite.

        Raises:
            InvalidConfigError: where a merged layer would compute something else.
            HeadError: for several adapters.
        """
        self._refuse_merging_blocks(adapter_names)
        check_mergeable(self.model, adapter_names)
        super().merge_adapter(adapter_names, safe_merge)

    def add_weighted_adapter(self, *given: Any, **options: Any) -> None:
        """Heads cannot be added up: they see different latents.

        Raises:
            InvalidConfigError: always.
        """
        del given, options
        raise InvalidConfigError(
            "AIFS adapters cannot be mixed with add_weighted_adapter: each head was trained on latents of its own "
            "encoder. Merge one, or send rows through several with adapter_names=[...]."
        )

    def _apply_labels(self, *, enabled: bool) -> None:
        """Tell the base model how many classes its head has now: its own loss reads `num_labels`."""
        base_config: Any = getattr(self.model, "config", None)
        if not hasattr(base_config, "num_labels"):
            return
        if "_base_labels" not in self.__dict__:
            self.__dict__["_base_labels"] = dict(getattr(base_config, "id2label", None) or {})
        active = [name for name in self.active_adapters if name in self.peft_config]
        names: dict[int, str] = self.__dict__["_base_labels"]
        if enabled and len(active) == 1:
            config = self._config(active[0])
            if config.labels:
                names = dict(enumerate(config.labels))
            elif config.num_labels and config.num_labels != len(names):
                names = {i: f"LABEL_{i}" for i in range(config.num_labels)}
        base_config.id2label = names
        base_config.label2id = {name: i for i, name in names.items()}
        if hasattr(self.model, "num_labels"):
            self.model.num_labels = len(names)

    def explain(
        self, inputs: Mapping[str, Any] | None = None, *, processor: Any = None, highlights: bool = True, **tensors: Any
    ) -> Explanation:
        """Why the model decides as it does on a batch, and what it would say without the attribute that was found.

        Works through PEFT's wrapper, too: `peft_model.explain(...)`. The model is left as it was.

        Args:
            inputs: a batch as the processor makes it; or give its tensors by name.
            processor: the tokenizer or image processor of the batch; words cannot be shown without the tokenizer, and
                pictures get their true colours by the image processor.
            highlights: whether to find what the attribute's score reads in each picture or text, which costs some
                forward and backward passes per example.
            **tensors: as the model takes them (`pixel_values`, `input_ids`, ...), or `latents=(n, dim)` alone.

        Returns:
            Predictions, the share of each decision along the spurious directions, the inferred attribute value, the
            prediction with another value, and highlights; with `to_frame()` and `plot()`.

        Raises:
            NotTrainedError: for an adapter that has not been trained.
            NothingFoundError: for one that knows no attribute.
            InvalidInputError: for inputs that do not fit, a merged adapter, or words without a tokenizer.

        Example:
            >>> import torch
            >>> from peft import get_peft_model
            >>> from aifs_peft.models import LatentClassifier, TabularEncoder
            >>> model = get_peft_model(LatentClassifier(TabularEncoder(4, 8), num_labels=2), AIFSConfig())
            >>> model.explain(latents=torch.zeros(3, 8))
            Traceback (most recent call last):
            aifs_peft.errors.NotTrainedError: this adapter has not been trained: it knows no attribute. ...
            >>> state = find_aifs_layer(model).state
            >>> beta = torch.eye(8)[:2] - torch.eye(8)[:2].mean(0)
            >>> reader = torch.cat([4 * beta, torch.zeros(2, 1)], dim=1)
            >>> basis = (beta[:1] / beta[0].norm()).T
            >>> state.update(mask=[1.0], basis=basis, displacements=beta, centre=torch.zeros(8), reader=reader)
            >>> told = model.explain(latents=torch.eye(8)[:3])
            >>> told.to_frame()["inferred"].tolist()[:2], len(told)
            (['LABEL_0', 'LABEL_1'], 3)
        """
        from aifs_peft.explain import explain_model

        layer = find_aifs_layer(self.model)
        config = self._config(layer.adapter)
        count = layer.aifs_spec[layer.adapter].num_labels
        known: Mapping[int, str] = getattr(getattr(self.model, "config", None), "id2label", None) or {}
        names = config.labels or [known.get(i, f"LABEL_{i}") for i in range(count)]
        return explain_model(
            self.model, layer, {**(inputs or {}), **tensors}, names, processor=processor, highlights=highlights
        )

    def train(self, mode: bool = True) -> AIFSModel:
        """Training mode for what is trained; what is frozen stays in evaluation mode, see `freeze_modes`.

        Args:
            mode: False for evaluation.

        Raises:
            InvalidConfigError: if checkpointing would keep gradients from the encoder's adapter, see
                `let_gradients_through` and `refuse_reentrant`.
        """
        super().train(mode)
        if mode:
            freeze_modes(self.model, find_aifs_layer(self.model))
            let_gradients_through(self.model)
            configs = [self._config(name) for name in self.peft_config]
            if any(config.latents == MULTI and config.tunes_encoder for config in configs):
                refuse_reentrant(self.model)
            unpack(self.model)
        return self
