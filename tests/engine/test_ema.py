"""The EMA of the weights: the written formula, lent to the module without a copy."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_task import ToyModel

from visionloop.engine.checkpoints.writer import load_tensors, save_tensors
from visionloop.engine.ema import ExponentialMovingAverage, ema_decay_for, named_state


def build_model(seed=0):
    torch.manual_seed(seed)
    return ToyModel(dropout=0.0, batch_norm=True)


def disturb(module, seed):
    """Change weights, statistics and counters as an optimizer step and a forward do."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator))
            else:
                tensor.add_(1)


def bits(tensors):
    return {name: tensor.detach().numpy().tobytes() for name, tensor in tensors.items()}


FINITE, NONFINITE = torch.tensor(0.0), torch.tensor(1.0)


@pytest.mark.parametrize("decay", [0.9998, 0.9, 0.2])
def test_the_ema_is_the_written_formula_step_by_step(decay):
    module = build_model()
    ema = ExponentialMovingAverage(module, decay)
    expected = {
        name: tensor.detach().double().clone() for name, tensor in module.state_dict().items()
    }
    for step in range(20):
        disturb(module, step)
        ema.update(step, FINITE)
        d = min(decay, (1 + step) / (10 + step))
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = d * expected[name] + (1 - d) * tensor.double()
            else:
                expected[name] = tensor.double()
        for name, tensor in ema.tensors.items():
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-5)


def test_statistics_are_averaged_and_counters_copied():
    module = build_model()
    ema = ExponentialMovingAverage(module, 0.9)
    module.norm.running_mean.fill_(1.0)
    module.norm.num_batches_tracked.fill_(17)
    ema.update(0, FINITE)
    assert ema.tensors["norm.running_mean"].tolist() == pytest.approx([0.9] * 8)
    assert ema.tensors["norm.num_batches_tracked"] == 17


def test_a_tensor_that_took_the_place_of_another_is_averaged():
    module = build_model()
    ema = ExponentialMovingAverage(module, 0.9)
    module.head.weight = torch.nn.Parameter(ema.tensors["head.weight"] + 1)
    module.norm.running_mean = torch.ones(8)
    before = ema.tensors["head.weight"].clone()
    ema.update(0, FINITE)
    torch.testing.assert_close(ema.tensors["head.weight"], before + 0.9)
    assert ema.tensors["norm.running_mean"].tolist() == pytest.approx([0.9] * 8)


def test_the_ema_holds_copies_of_its_own():
    module = build_model()
    ema = ExponentialMovingAverage(module, 0.9)
    before = bits(ema.tensors)
    disturb(module, 0)
    assert bits(ema.tensors) == before
    assert all(not tensor.requires_grad for tensor in ema.tensors.values())


def test_a_nonfinite_step_changes_no_bit():
    module = build_model()
    ema = ExponentialMovingAverage(module, 0.9)
    for step in range(5):
        disturb(module, step)
        ema.update(step, FINITE)
    before = bits(ema.tensors)
    counted = module.norm.num_batches_tracked.clone()
    disturb(module, 9)
    module.norm.num_batches_tracked.copy_(counted)  # the step itself puts the buffers back
    ema.update(5, NONFINITE)
    assert bits(ema.tensors) == before


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_nonfinite_step_with_a_buffer_that_is_not_finite_changes_no_bit(value):
    """Zero times infinity is nan: a product with 0 is no guard."""
    module = build_model()
    module.register_buffer("running_scale", torch.ones(3))
    ema = ExponentialMovingAverage(module, 0.9)
    before = bits(ema.tensors)
    module.running_scale.fill_(value)
    ema.update(0, NONFINITE)
    assert bits(ema.tensors) == before


def test_a_nonfinite_step_keeps_the_sign_of_zero():
    module = torch.nn.Linear(2, 1, bias=False)
    module.weight.data.copy_(torch.tensor([[-0.0, 0.0]]))
    ema = ExponentialMovingAverage(module, 0.9)
    before = bits(ema.tensors)
    module.weight.data.fill_(1.0)
    ema.update(0, NONFINITE)
    assert bits(ema.tensors) == before


def test_a_step_without_change_keeps_the_ema():
    module = build_model()
    ema = ExponentialMovingAverage(module, 0.9)
    before = bits(ema.tensors)
    for step in range(3):
        ema.update(step, FINITE)
    assert bits(ema.tensors) == before


def test_applied_lends_the_emas_and_returns_the_weights_in_the_same_memory():
    module = build_model()
    ema = ExponentialMovingAverage(module, 0.5)
    disturb(module, 0)
    own = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
    own_bits, lent_bits = bits(module.state_dict()), bits(ema.tensors)
    parameters = list(module.parameters())
    with ema.applied(module):
        assert bits(module.state_dict()) == lent_bits
        assert all(a is b for a, b in zip(parameters, module.parameters(), strict=True)), (
            "the optimizer's parameters stay the same objects"
        )
    assert {name: tensor.data_ptr() for name, tensor in module.state_dict().items()} == own
    assert bits(module.state_dict()) == own_bits and bits(ema.tensors) == lent_bits


def test_applied_returns_the_weights_after_an_error_inside():
    module = build_model()
    ema = ExponentialMovingAverage(module, 0.5)
    disturb(module, 0)
    before = bits(module.state_dict())
    with pytest.raises(RuntimeError), ema.applied(module):
        raise RuntimeError
    assert bits(module.state_dict()) == before


def test_the_module_computes_with_the_emas_inside_applied():
    module, other = build_model().eval(), build_model(seed=5).eval()
    ema = ExponentialMovingAverage(other, 0.5)
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = other(images)
        own = module(images)
        with ema.applied(module):
            assert torch.equal(module(images), expected)
        assert torch.equal(module(images), own)


def build_tied_model():
    module = torch.nn.ModuleDict({"first": torch.nn.Linear(3, 3), "second": torch.nn.Linear(3, 3)})
    module["second"].weight = module["first"].weight
    return module


def test_tied_weights_are_counted_once_and_stay_tied():
    module = build_tied_model()
    assert set(named_state(module)) == {"first.weight", "first.bias", "second.bias"}
    ema = ExponentialMovingAverage(module, 0.9)
    module["first"].weight.data.add_(1)
    before = ema.tensors["first.weight"].clone()
    ema.update(0, FINITE)
    torch.testing.assert_close(
        ema.tensors["first.weight"], before + 0.9
    )  # moved once: 1 - 1/10, not twice
    with ema.applied(module):
        torch.testing.assert_close(module["second"].weight.data, before + 0.9)
    assert module["second"].weight is module["first"].weight


def test_buffers_that_are_not_saved_are_not_averaged():
    module = build_model()
    module.register_buffer("cache", torch.ones(2), persistent=False)
    assert "cache" not in ExponentialMovingAverage(module, 0.9).tensors


def test_averages_come_back_from_disk_bit_for_bit(tmp_path):
    module = build_model()
    ema = ExponentialMovingAverage(module, 0.9)
    disturb(module, 0)
    ema.update(0, FINITE)
    save_tensors(tmp_path / "ema.safetensors", ema.tensors)
    other = ExponentialMovingAverage(build_model(seed=3), 0.9)
    other.load(load_tensors(tmp_path / "ema.safetensors"))
    assert bits(other.tensors) == bits(ema.tensors)


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_averages_with_other_names_are_refused(change):
    ema = ExponentialMovingAverage(build_model(), 0.9)
    tensors = dict(ema.tensors)
    if change == "missing":
        del tensors["head.bias"]
    else:
        tensors["tail.bias"] = torch.zeros(2)
    with pytest.raises(ValueError, match="of another model"):
        ema.load(tensors)


@given(decay=st.floats(0, 1), steps=st.integers(1, 10**7))
def test_the_ema_spans_at_most_a_tenth_of_the_run(decay, steps):
    lowered = ema_decay_for(decay, steps)
    assert 0 <= lowered <= decay
    span = 1 / (1 - lowered) if lowered < 1 else float("inf")
    assert span <= max(1, steps / 10) * (1 + 1e-9)


def test_a_long_run_has_the_decay_that_was_asked_for():
    assert ema_decay_for(0.9998, 1_000_000) == 0.9998
    assert ema_decay_for(0.9998, 1000) == pytest.approx(0.99)
    assert ema_decay_for(0.9998, 5) == 0.0
