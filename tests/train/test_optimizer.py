"""The optimizer: small steps are not lost to rounding, and nothing is applied that isn't finite."""

import math

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from mem1.errors import TrainingError  # noqa: E402
from mem1.train.config import OptimizerConfig  # noqa: E402
from mem1.train.optimizer import Optimizer  # noqa: E402

PLAIN = OptimizerConfig(lr=1e-6, weight_decay=0.0)


def parameter(dtype=torch.float32, *, value: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.full((3,), value, dtype=dtype))


def step(weights: nn.Parameter, optimizer: Optimizer, *, gradient: float = 1.0) -> float:
    """In two parts, as two rows of a mini-batch."""
    for share in (0.25, 0.75):
        (weights * (gradient * share)).sum().backward()
    norm = optimizer.clip(batch="b")
    optimizer.step()
    return norm


def trained(dtype, *, steps: int, config=PLAIN) -> nn.Parameter:
    weights = parameter(dtype)
    optimizer = Optimizer([weights], config=config, total_steps=steps)
    for number in range(steps):
        step(weights, optimizer, gradient=math.sin(number) + 2)
    return weights


@pytest.mark.parametrize(
    ("warmup", "cooldown", "expected"),
    [(0.5, 0.0, [0.5, 1, 1, 1]), (0.0, 0.5, [1, 1, 1, 0.5]), (0.5, 0.75, [0.5, 1, 2 / 3, 1 / 3])],
)
def test_the_learning_rate_rises_stays_and_falls(warmup, cooldown, expected):
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    # Without momentum, a step of AdamW is the learning rate itself.
    config = OptimizerConfig(
        lr=1.0, warmup=warmup, cooldown=cooldown, weight_decay=0.0, betas=(0.0, 0.0)
    )
    optimizer = Optimizer([weight], config=config, total_steps=4)
    steps = []
    for _ in range(4):
        before = weight.item()
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        steps.append(before - weight.item())
    assert steps == pytest.approx(expected)


def test_a_bfloat16_weight_moves_as_a_float32_one_would():
    config = OptimizerConfig(lr=1e-4, weight_decay=0.0)
    expected = trained(torch.float32, steps=100, config=config)
    found = trained(torch.bfloat16, steps=100, config=config)
    assert found.dtype == torch.bfloat16
    # Gradients are rounded to bfloat16; the sum of a hundred steps of 1e-4 isn't.
    assert found.tolist() == expected.bfloat16().tolist() != [1.0] * 3


def test_steps_too_small_for_bfloat16_are_kept_in_its_copy():
    weights = parameter(torch.bfloat16)
    optimizer = Optimizer([weights], config=PLAIN, total_steps=100)
    for _ in range(100):
        step(weights, optimizer)
    (copy,) = [t for name, t in optimizer.state().tensors.items() if name.startswith("master.")]
    assert weights.tolist() == [1.0] * 3
    exact = parameter()
    optimizer = Optimizer([exact], config=PLAIN, total_steps=100)
    for _ in range(100):
        step(exact, optimizer)
    assert copy.tolist() == exact.tolist() == pytest.approx([1 - 1e-4] * 3, abs=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_goes_on_from_its_state_bit_for_bit(dtype):
    def run(*, stop: int | None) -> list[float]:
        weights = parameter(dtype)
        optimizer = Optimizer([weights], config=PLAIN, total_steps=20)
        for number in range(10):
            if number == stop:
                state, values = optimizer.state(), weights.detach().clone()
                weights = parameter(dtype, value=9.0)
                optimizer = Optimizer([weights], config=PLAIN, total_steps=20)
                with torch.no_grad():
                    weights.copy_(values)
                optimizer.load(state)
            step(weights, optimizer, gradient=math.sin(number) + 2)
        tensors = optimizer.state().tensors
        return [weights.tolist(), *(tensors[name].tolist() for name in sorted(tensors))]

    assert run(stop=4) == run(stop=None)


def test_gradients_are_cut_to_the_largest_norm_and_told_as_they_were():
    weights = parameter()
    optimizer = Optimizer([weights], config=OptimizerConfig(grad_clip=2.0), total_steps=1)
    (weights * 10).sum().backward()
    assert optimizer.clip(batch="b") == pytest.approx(math.sqrt(300))
    assert float(weights.grad.norm()) == pytest.approx(2.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gradient", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_names_its_batch(dtype, gradient):
    weights = parameter(dtype)
    optimizer = Optimizer([weights], config=PLAIN, total_steps=1)
    (weights * gradient).sum().backward()
    with pytest.raises(TrainingError, match=r"step 7, tasks t0: the gradient is (nan|inf)"):
        optimizer.clip(batch="step 7, tasks t0")
    optimizer.clear()
    assert weights.grad is None
    assert step(weights, optimizer) == pytest.approx(math.sqrt(3), rel=1e-2)


def test_what_does_not_train_is_left_alone():
    frozen = parameter().requires_grad_(False)
    optimizer = Optimizer([frozen, weights := parameter()], config=PLAIN, total_steps=1)
    step(weights, optimizer)
    assert frozen.tolist() == [1.0] * 3
    assert {name.split(".")[0] for name in optimizer.state().tensors} == {"0"}
