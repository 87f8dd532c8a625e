"""The losses of docs/policy.md at the array conventions of trainers, against loops in NumPy.

client_batches.npz holds one small batch of each, with padding that is nan, infinite or huge.
"""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("x64")

PAGE = Path(__file__).parents[2] / "docs" / "policy.md"
ARRAYS = np.load(Path(__file__).parent / "client_batches.npz")


def code() -> dict[str, Any]:
    """The names that the block of the page defines."""
    text = PAGE.read_text().split("<!-- code:clients -->")[1].split("<!-- /code -->")[0]
    scope: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], scope)
    return scope


def batch(stack: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(stack + "_"): x for k, x in ARRAYS.items() if k.startswith(stack)}


def clip(ratio: float, advantage: float, eps: float) -> float:
    return -min(ratio * advantage, np.clip(ratio, 1 - eps, 1 + eps) * advantage)


def tunix_loop(b: dict[str, np.ndarray]) -> tuple[float, np.ndarray]:
    """Groups of 3, less the others' mean; a mean for each answer; KL of the answers, 0.04."""
    new, old, ref = (b[f"{k}per_token_logps"] for k in ("", "old_", "ref_"))
    loss, slope, answers = 0.0, np.zeros_like(new), 0
    for i, where in enumerate(b["completion_mask"]):
        length = where.sum()
        if length == 0:
            continue
        answers += 1
        group = np.delete(b["rewards"][i // 3 * 3 : i // 3 * 3 + 3], i % 3)
        advantage = b["rewards"][i] - group.mean()
        for t in range(length):
            ratio = np.exp(new[i, t] - old[i, t])
            weights = np.exp(np.cumsum(new[i, :length] - old[i, :length]))
            d = new[i, :length] - ref[i, :length]
            loss += clip(ratio, advantage, 0.2) / length
            loss += 0.04 * weights[t] * (np.exp(-d[t]) - 1 + d[t]) / length
            held = (advantage > 0 and ratio > 1.2) or (advantage < 0 and ratio < 0.8)
            slope[i, t] = 0 if held else -ratio * advantage
            slope[i, t] = (slope[i, t] + 0.04 * (weights * d)[t:].sum()) / length
    return loss / answers, slope / answers


def easydel_loop(b: dict[str, np.ndarray]) -> tuple[float, np.ndarray]:
    """The ratio of the answer by the mean; all tokens of the whole batch count alike."""
    new, old = b["per_token_logps"], b["old_per_token_logps"]
    loss, slope = 0.0, np.zeros_like(new)
    for i, where in enumerate(b["completion_mask"]):
        length = where.sum()
        if length == 0:
            continue
        ratio = np.exp(np.mean(new[i, :length] - old[i, :length]))
        advantage = b["advantages"][i]
        loss += length * clip(ratio, advantage, 0.2)
        held = (advantage > 0 and ratio > 1.2) or (advantage < 0 and ratio < 0.8)
        slope[i, :length] = 0 if held else -ratio * advantage
    n = b["num_items_in_batch"]
    return loss / n, slope / n


def brax_loop(b: dict[str, np.ndarray]) -> tuple[float, np.ndarray]:
    """Time leads; a step at which an episode is cut off has no advantage and trains no value."""
    steps, episodes = b["reward"].shape
    loss, slope = 0.0, np.zeros((steps, episodes))
    for e in range(episodes):
        above = 0.0
        for t in range(steps)[::-1]:
            following = b["bootstrap_value"][e] if t == steps - 1 else b["baseline"][t + 1, e]
            discount = 0.9 * (1 - b["termination"][t, e])
            delta = b["reward"][t, e] + discount * following - b["baseline"][t, e]
            above = 0.0 if b["truncation"][t, e] else delta + discount * 0.95 * above
            ratio = np.exp(b["log_prob"][t, e] - b["behaviour_log_prob"][t, e])
            loss += clip(ratio, above, 0.3) + 0.25 * above**2
            held = (above > 0 and ratio > 1.3) or (above < 0 and ratio < 0.7)
            slope[t, e] = 0 if held else -ratio * above
    return loss / slope.size, slope / slope.size


# The loop, and the arrays in the order in which the loss takes them; the first is differentiated.
TOKENS = ("per_token_logps", "old_per_token_logps")
CLIENTS = {
    "tunix": (tunix_loop, (*TOKENS, "ref_per_token_logps", "completion_mask", "rewards")),
    "easydel": (easydel_loop, (*TOKENS, "completion_mask", "advantages", "num_items_in_batch")),
    "brax": (
        brax_loop,
        ("log_prob", "behaviour_log_prob", "reward", "truncation", "termination", "baseline")
        + ("bootstrap_value",),
    ),
}


@pytest.mark.parametrize("stack", CLIENTS)
def test_the_loss_at_the_convention_of_a_trainer_is_that_of_a_loop(stack: str) -> None:
    loop, names = CLIENTS[stack]
    given = batch(stack)
    assert set(names) == set(given)
    loss = code()[f"{stack}_loss"]
    found, slope = jax.jit(jax.value_and_grad(loss))(*(given[name] for name in names))
    desired, exact = loop(given)
    np.testing.assert_allclose(found, desired, rtol=0, atol=1e-12)
    np.testing.assert_allclose(slope, exact, rtol=0, atol=1e-12)


def test_each_takes_five_lines_at_most() -> None:
    text = PAGE.read_text().split("<!-- code:clients -->")[1].split("<!-- /code -->")[0]
    bodies = re.findall(r'def \w+_loss\(.*\):\n    """.*"""\n((?:    .*\n)+)', text)
    assert [len(body.splitlines()) for body in bodies] == [5, 3, 5]
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_learner_of_tunix_learns_by_our_loss() -> None:
    """In an environment that has the extra ``integrations``."""
    pytest.importorskip("tunix")
    sys.path.append(str(PAGE.parents[1] / "examples"))
    with jax.enable_x64(new_val=False):
        rewards = importlib.import_module("tunix_grpo").train(40)
    assert len(rewards) == 40
    assert np.mean(rewards[:4]) < 0.3
    assert np.mean(rewards[-8:]) > 0.5
