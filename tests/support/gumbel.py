"""Uniform numbers whose Gumbel noise puts categories in a given order; every order there is."""

import itertools

import numpy as np


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def uniforms_of(log_probs, order):
    """Uniforms [C] at which log_probs [C] plus their Gumbel noise descend in that order."""
    rank = np.argsort(order)
    noise = -rank - log_probs
    noise = noise - noise.min() - 1.5  # exp(exp(1.5)) is within reach of 8 bits
    assert noise.max() < 32, "these probabilities are too far apart for 52 bits"
    return np.exp(-np.exp(-noise))


def probability_of(probs, drawn):
    """The probability of these categories, one by one in this order, without replacement."""
    # What is left is added up, since 1 - p cancels.
    left = [
        sum(probs[i] for i in range(len(probs)) if i not in drawn[:j]) for j in range(len(drawn))
    ]
    return np.prod([probs[i] / rest for i, rest in zip(drawn, left, strict=True)])


def draws(logits, k):
    """Every ordered draw [k] without replacement: indices, uniforms [P, C], probabilities [P]."""
    log_probs = log_softmax(logits)
    categories = range(len(log_probs))
    drawn = list(itertools.permutations(categories, k))
    rest = [[i for i in categories if i not in d] for d in drawn]
    points = [uniforms_of(log_probs, [*d, *r]) for d, r in zip(drawn, rest, strict=True)]
    weights = [probability_of(np.exp(log_probs), d) for d in drawn]
    return drawn, np.array(points), np.array(weights)


def product(*rules):
    """The product of rules (points [P, w], weights [P])."""
    points = [np.concatenate(p) for p in itertools.product(*(points for points, _ in rules))]
    weights = [np.prod(w) for w in itertools.product(*(weights for _, weights in rules))]
    return np.array(points), np.array(weights)
