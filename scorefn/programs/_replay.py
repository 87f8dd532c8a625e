"""The past of a program: enough to come to the same point once more."""

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
    """What a program turned out to hold while it was traced.

    Attributes:
        draws: the most choices that were made.
        claims: whether anything said what it depends on.
    """

    draws: int = 0
    claims: bool = False


@dataclass(frozen=True, eq=False)
class Past:
    """What has happened up to a point of a program, enough to come there once more.

    Attributes:
        body: starts it afresh.
        has_aux: whether it returns a pair of a cost and aux.
        sent: what its choices and rollouts received so far.
        draws: the choices among these.
        masks: for each of the draws, itself and what it depends on; bit i stands for draw i.
        tally: shared by all pasts of one program.
    """

    body: Body
    has_aux: bool = False
    sent: tuple[Any, ...] = ()
    draws: tuple[Any, ...] = ()
    masks: tuple[int, ...] = ()
    tally: Tally = field(default_factory=Tally)

    def again(self) -> Generator[Any, Any, PyTree]:
        """A new generator that waits where the last of what was sent is to be handed in."""
        generator = self.body()
        value, sent = None, iter(self.sent)
        for _ in self.sent:
            request: Any = Cost(None, None)
            while isinstance(request, Cost):
                ended, request = next_request(generator.send, value)
                value = None
                if ended:
                    raise RuntimeError(
                        "A program ended earlier when it was traced once more: it must be "
                        "repeatable, with no side effects and no randomness but its choices."
                    )
            value = next(sent)
        return generator

    def after(self, draw: Any, depends_on: tuple[Any, ...] | None) -> "Past":
        """The past once a choice has been made."""
        mask = 1 << len(self.draws) | self.mask(depends_on)
        self.tally.draws = max(self.tally.draws, len(self.draws) + 1)
        return replace(
            self,
            sent=(*self.sent, draw),
            draws=(*self.draws, draw),
            masks=(*self.masks, mask),
        )

    def after_rollout(self, carry: Any) -> "Past":
        """The past once a rollout has come to its end."""
        return replace(self, sent=(*self.sent, carry))

    def mask(self, depends_on: tuple[Any, ...] | None) -> int:
        """The set of choices that some draws stand for; None is all."""
        if depends_on is None:
            return (1 << len(self.draws)) - 1
        self.tally.claims = True
        return functools.reduce(int.__or__, map(self._mask_of, depends_on), 0)

    def _mask_of(self, value: Any) -> int:
        for draw, mask in zip(self.draws, self.masks, strict=True):
            if any(value is part for part in (draw, *jax.tree.leaves(draw))):
                return mask
        raise ValueError(
            f"depends_on lists draws as they were received from yield, or leaves of them; "
            f"{value!r} is none. What was computed from a draw does not tell which one it was."
        )
