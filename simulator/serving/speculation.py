"""Speculative decoding: a draft proposes tokens, and one step of the model checks them all."""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.tuples import NamedTuple

ACCEPTED = 0.7
DRAFT = 0.05
MOST = 64  # drafted tokens


class Speculation(NamedTuple):
    """drafted: tokens per step; accepted: probability that a drafted token is kept, given that
    those before it are; draft: time of the draft of one step, as a share of a decode step.
    """

    drafted: int = 0
    accepted: float = 0.0
    draft: float = 0.0

    @property
    def tokens(self) -> float:
        """Tokens that a step makes for a sequence, E = (1 - a^(g+1)) / (1 - a) [leviathan2023].

        >>> Speculation(3, 0.5).tokens, Speculation().tokens
        (1.875, 1.0)
        """
        a, g = self.accepted, self.drafted
        return sum(a**i for i in range(g + 1))


NONE = Speculation()


def speculation(drafted: int, accepted: float | None = None) -> tuple[Speculation, tuple[str, ...]]:
    """The speculation that is asked for, and what it assumes. Raises BadInput."""
    if not 0 <= drafted <= MOST:
        raise BadInput(f"speculate {drafted}: give 0 to {MOST} drafted tokens")
    if accepted is not None and not 0 <= accepted < 1:
        raise BadInput(f"acceptance {accepted:g}: give 0 to below 1, for example 0.7")
    if drafted == 0:
        if accepted is not None:
            raise BadInput("acceptance without drafted tokens; give both, for example speculate 3")
        return NONE, ()
    rate = ACCEPTED if accepted is None else accepted
    found = Speculation(drafted, rate, DRAFT * drafted)
    given = "assumed" if accepted is None else "as given"
    return found, (
        f"speculative decoding: {drafted} drafted tokens, each kept with probability {rate:g}"
        f" ({given}), {found.tokens:.3g} tokens per step; a drafted token costs"
        f" {DRAFT:.0%} of a decode step",
    )
