"""Replay of a generator up to a given choice."""

import functools
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from scorefn._core.types import PyTree

from ._requests import Cost, next_request

Body = Callable[[], Generator[Any, Any, PyTree]]


@dataclass
class Tally:
    """Counts collected while a program is traced.

    Attributes:
        draws: the largest number of choices made.
        claims: whether any choice or cost declared its dependencies.
    """

    draws: int = 0
    claims: bool = False


@dataclass(frozen=True, eq=False)
class Past:
    """The history of a program up to a point, sufficient to replay it.

    Attributes:
        body: a function that starts the program.
        has_aux: whether the program returns a pair of a cost and aux.
        eager: whether the program started outside of jit.
        sent: the values sent to its choices and rollouts so far.
        draws: the draws among these values.
        masks: the set of each draw and its dependencies; bit i represents draw i.
        tally: counts shared by all pasts of one program.
    """

    body: Body
    has_aux: bool = False
    eager: bool = False
    sent: tuple[Any, ...] = ()
    draws: tuple[Any, ...] = ()
    masks: tuple[int, ...] = ()
    tally: Tally = field(default_factory=Tally)

    def again(self) -> Generator[Any, Any, PyTree]:
        """A new generator, replayed to the point where the last value is to be sent."""
        generator = self.body()
        value, sent = None, iter(self.sent)
        for _ in self.sent:
            request: Any = Cost(None, None)
            while isinstance(request, Cost):
                ended, request = next_request(generator.send, value)
                value = None
                if ended:
                    raise RuntimeError(
                        "A program ended earlier when it was traced again. It must be "
                        "repeatable, without side effects and without randomness except its "
                        "choices."
                    )
            value = next(sent)
        return generator

    def after(self, draw: Any, depends_on: tuple[Any, ...] | None) -> "Past":
        """The past after one more choice."""
        mask = 1 << len(self.draws) | self.mask(depends_on)
        self.tally.draws = max(self.tally.draws, len(self.draws) + 1)
        return replace(
            self,
            sent=(*self.sent, draw),
            draws=(*self.draws, draw),
            masks=(*self.masks, mask),
        )

    def after_rollout(self, carry: Any) -> "Past":
        """The past after a rollout."""
        return replace(self, sent=(*self.sent, carry))

    def mask(self, depends_on: tuple[Any, ...] | None) -> int:
        """The set of choices behind the given draws; None means all."""
        if depends_on is None:
            return (1 << len(self.draws)) - 1
        self.tally.claims = True
        return functools.reduce(int.__or__, map(self._mask_of, depends_on), 0)

    def _mask_of(self, value: Any) -> int:
        for draw, mask in zip(self.draws, self.masks, strict=True):
            if any(value is part for part in (draw, *jax.tree.leaves(draw))):
                return mask
        raise ValueError(
            f"depends_on must list draws as received from yield, or leaves of them, got {value!r}. "
            f"Pass the draw itself instead of a value computed from it."
        )
