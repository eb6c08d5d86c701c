"""AIFSLayer: pooling, arming, taking, merging."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn
from tuner_zoo import batch, build, fill_state, logits

from aifs_peft import AIFSConfig
from aifs_peft.errors import HeadError
from aifs_peft.latent.heads import MLPHead
from aifs_peft.latent.pooling import pool_latent
from aifs_peft.tuner import AIFSLayer, find_aifs_layer


def layer_of(base=None, **fields):
    return AIFSLayer(base or nn.Linear(4, 3), "default", AIFSConfig(**fields))


class Counter(nn.Module):
    """A head that counts its calls and remembers the batch size."""

    def __init__(self):
        super().__init__()
        self.inner, self.sizes = nn.Linear(4, 3), []

    def forward(self, z):
        self.sizes.append(len(z))
        return self.inner(z)


@pytest.mark.parametrize(
    ("shape", "pool", "expected"),
    [
        ((2, 3), "auto", lambda x: x),
        ((2, 5, 3), "auto", lambda x: x[:, 0]),
        ((2, 5, 3), "cls", lambda x: x[:, 0]),
        ((2, 5, 3), "last", lambda x: x[:, -1]),
        ((2, 5, 3), "mean", lambda x: x.mean(1)),
        ((2, 3, 4, 5), "auto", lambda x: x.mean((2, 3))),
    ],
)
def test_pooling(shape, pool, expected):
    x = torch.randn(shape)
    torch.testing.assert_close(pool_latent(x, pool), expected(x))


def test_pooling_refuses_other_shapes():
    with pytest.raises(HeadError, match=r"fed shape \(3,\)"):
        pool_latent(torch.zeros(3))


def test_an_armed_layer_calls_its_head_once_and_keeps_both_halves():
    layer = layer_of()
    layer.aifs_head["default"] = head = Counter()
    x = torch.randn(5, 4)
    layer.arm(lambda z: z + 1)
    out = layer(x)
    assert head.sizes == [10]
    output = layer.take_output()
    assert output.z is x
    torch.testing.assert_close(output.intervened, x + 1)
    torch.testing.assert_close(output.intervened_logits, head.inner(x + 1))
    torch.testing.assert_close(out, head.inner(x))
    layer.eval()
    assert torch.equal(layer(x), layer.take_output().logits)
    assert head.sizes == [10, 5]
    layer.train()
    layer.arm(None)
    layer(x)
    output = layer.take_output()
    assert output.intervened is None
    assert output.intervened_logits is None


def test_gradients_flow_through_both_halves():
    layer = layer_of()
    layer.arm(lambda z: 2 * z)
    x = torch.randn(5, 4, requires_grad=True)
    layer(x)
    output = layer.take_output()
    (gradient,) = torch.autograd.grad((output.logits + output.intervened_logits).sum(), x)
    torch.testing.assert_close(gradient, 3 * layer.head.weight.sum(0).expand(5, 4))


def test_a_latent_output_is_taken_once():
    layer = layer_of()
    with pytest.raises(HeadError, match="no latent to take"):
        layer.take_output()
    layer(torch.zeros(1, 4))
    assert layer.has_output
    layer.take_output()
    assert not layer.has_output
    with pytest.raises(HeadError, match="can be taken once"):
        layer.take_output()


class Marked(torch.autograd.Function):
    """The identity; what `marks` holds lives as long as the graph."""

    @staticmethod
    def forward(ctx, x, marks):
        ctx.mark = marks.pop()
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_plain_inference_keeps_no_graph_alive(mode):
    layer = getattr(layer_of(pool="cls"), mode)()
    mark = nn.Identity()
    alive = weakref.ref(mark)
    x = Marked.apply(torch.randn(2, 5, 4, requires_grad=True), [mark])
    out = layer(x)
    del mark
    assert out.requires_grad
    assert alive() is not None
    del out, x
    gc.collect()
    assert layer.has_output
    assert alive() is None
    output = layer.take_output()
    assert not output.z.requires_grad
    assert not output.logits.requires_grad
    assert output.z.untyped_storage().nbytes() == output.z.nbytes  # and no view of the hidden states of all tokens


def test_a_block_that_intervenes_keeps_the_graph_and_cleans_up_after_an_error():
    model = get_peft_model(build("vit"), AIFSConfig()).train()
    layer = find_aifs_layer(model)
    for intervention in (None, lambda z: z + 1):
        with layer.intervening(intervention):
            model(**batch("vit"))
        output = layer.take_output()
        assert output.logits.requires_grad
        assert (output.intervened is None) == (intervention is None)
    with pytest.raises(KeyError, match="in the block"), layer.intervening(lambda z: z):
        raise KeyError("in the block")
    assert not layer.armed
    model(**batch("vit"))
    assert not layer.take_output().logits.requires_grad


def test_an_intervention_must_keep_the_shape():
    layer = layer_of()
    layer.arm(lambda z: z[:1])
    with pytest.raises(HeadError, match=r"must keep the shape \(2, 4\), got \(1, 4\)"):
        layer(torch.zeros(2, 4))


def test_a_model_with_a_pending_output_can_be_copied_and_pickled():
    model = get_peft_model(build("vit"), AIFSConfig()).train()
    layer = find_aifs_layer(model)
    layer.arm(lambda z: z + 1)
    model(**batch("vit"))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not find_aifs_layer(twin).has_output
        assert not find_aifs_layer(twin).armed
        assert torch.equal(logits(twin, "vit"), logits(model, "vit"))
    model(**batch("vit"))
    assert layer.armed
    assert layer.take_output().intervened is not None


def test_a_linear_head_on_tokens_is_refused_unless_told_how_to_pool():
    x = torch.randn(2, 5, 4)
    with pytest.raises(HeadError, match="sees 5 vectors per example and no pooled latent"):
        layer_of()(x)
    layer = layer_of(pool="mean")
    torch.testing.assert_close(layer(x), layer.head(x.mean(1)))
    expected = layer(x)
    layer.merge()
    torch.testing.assert_close(layer(x), expected)
    layer.unmerge()
    torch.testing.assert_close(layer(x), expected)


def test_unmerging_twice_warns_and_merging_twice_does_nothing():
    layer = layer_of()
    layer.merge()
    merged = layer.base_layer
    with pytest.warns(UserWarning, match="All adapters are already merged"):
        layer.merge()
    assert layer.base_layer is merged
    layer.unmerge()
    with pytest.warns(UserWarning, match="Already unmerged"):
        layer.unmerge()


def test_heads_cannot_be_added_up():
    layer = layer_of()
    layer.update_layer("b", AIFSConfig())
    with pytest.raises(HeadError, match="merge one adapter"):
        layer.merge(adapter_names=["default", "b"])
    layer.set_adapter(["default", "b"])
    with pytest.raises(HeadError, match="exactly one active adapter"):
        layer(torch.zeros(1, 4))


def test_safe_merge_refuses_a_head_that_is_not_finite():
    layer = layer_of()
    layer.head.weight.data[0, 0] = float("nan")
    with pytest.raises(HeadError, match="not finite"):
        layer.merge(safe_merge=True)
    assert not layer.merged


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("name", ["vit", "roberta"])
def test_other_heads_save_reload_and_merge(name, kind, tmp_path):
    base = build(name)
    model = get_peft_model(copy.deepcopy(base), AIFSConfig(head=kind, head_hidden=6, num_labels=4))
    layer = find_aifs_layer(model)
    fill_state(layer)
    assert isinstance(layer.head, MLPHead if kind == "mlp" else nn.Linear)
    trained = logits(model, name)
    assert trained.shape == (4, 4)
    model.save_pretrained(tmp_path)
    for low in (False, True):
        again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, low_cpu_mem_usage=low)
        assert torch.equal(logits(again, name), trained)
    with model.disable_adapter():
        assert torch.equal(logits(model, name), logits(base, name))
    torch.testing.assert_close(logits(model.merge_and_unload(), name), trained)


def test_a_copied_block_classifies_latents_as_it_classifies_sequences():
    base = build("roberta")
    model = get_peft_model(copy.deepcopy(base), AIFSConfig()).eval()
    layer = find_aifs_layer(model)
    assert layer.aifs_spec["default"].sequence
    out = logits(model, "roberta")
    output = layer.take_output()
    assert output.z.shape == (4, 16)
    torch.testing.assert_close(layer.classify(output.z), out)
    torch.testing.assert_close(out, logits(base, "roberta"))  # untrained copy: the base model's answer


def test_fewer_classes_start_with_a_fresh_last_layer_and_a_copied_rest():
    base = build("roberta")
    model = get_peft_model(copy.deepcopy(base), AIFSConfig(num_labels=2))
    head = find_aifs_layer(model).head
    assert head.out_proj.out_features == 2
    assert torch.equal(head.dense.weight, base.classifier.dense.weight)


def test_dropping_the_adapter_gives_the_base_back():
    base = build("vit")
    model = get_peft_model(copy.deepcopy(base), AIFSConfig(num_labels=5))
    plain = model.unload()
    assert plain.config.num_labels == 3
    assert torch.equal(logits(plain, "vit"), logits(base, "vit"))


def test_no_layer_is_an_error():
    with pytest.raises(HeadError, match=r"no AIFS layer in this Linear; wrap it: get_peft_model"):
        find_aifs_layer(nn.Linear(1, 1))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # Dynamo's own
def test_a_compiled_model_still_intervenes_and_leaves_its_latent_output():
    # Hooks added after compilation can be ignored; a module cannot. The eager backend keeps the same bits.
    model = get_peft_model(build("vit"), AIFSConfig()).train()
    layer = find_aifs_layer(model)
    compiled = torch.compile(model, backend="eager")
    inputs = batch("vit")
    plain = compiled(**inputs).logits
    assert torch.equal(plain, model(**inputs).logits)
    layer.arm(lambda z: z + 1)
    assert torch.equal(compiled(**inputs).logits, plain)
    output = layer.take_output()
    torch.testing.assert_close(output.intervened, output.z + 1)
    assert not torch.equal(output.intervened_logits, output.logits)


def test_all_state_dict_tensors_are_written_with_their_own_storage(tmp_path):
    model = get_peft_model(build("vit"), AIFSConfig())
    basis = torch.linalg.qr(torch.randn(16, 3))[0].T.contiguous().T  # not contiguous, as transposes are
    assert not basis.is_contiguous()
    find_aifs_layer(model).state.update(basis=basis, mask=torch.ones(3))
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(build("vit"), tmp_path)
    assert torch.equal(find_aifs_layer(again).state.basis, basis)
