"""Loss of a language model against parameters and tokens, and the best of both for a budget.

    L(N, D) = E + A / N^alpha + B / D^beta                                     [hoffmann2022]
    C       = 6 N D                 FLOP of the training
    N*      = G (C / 6)^(beta / (alpha + beta)),   D* = C / (6 N*)
    G       = (alpha A / (beta B))^(1 / (alpha + beta))

The constants are those that Besiroglu et al. fitted again to the points of Hoffmann et al.
[besiroglu2024]: the printed ones do not fit these points, and contradict the paper's other two
estimates. They are here to be shown as refuted.
"""

from __future__ import annotations

import math
from typing import NamedTuple

Z80 = 1.2816  # standard errors to either side of an 80 % interval
# parameters and tokens at the centre of the runs that the law was fitted to (geometric means of
# 44 million to 16 billion, 5 to 400 billion)
CENTRE = (1.0e9, 2.0e10)
TRAIN, INFER = 6.0, 2.0  # FLOP per parameter and token


class Law(NamedTuple):
    """A scaling law; loss in nats per token."""

    name: str
    e: float
    a: float
    b: float
    alpha: float
    beta: float
    error: float  # standard error of each exponent
    e_error: float  # of E [nats per token]

    def loss(self, parameters: float, tokens: float) -> float:
        """Loss of a model after so many tokens [nats per token]."""
        return self.e + self.a / parameters**self.alpha + self.b / tokens**self.beta

    def optimum(self, flop: float) -> tuple[float, float]:
        """Parameters and tokens of the least loss for a training budget [FLOP].

        >>> n, d = REFIT.optimum(5.76e23)
        >>> round(n / 1e9), round(d / n)
        (72, 18)
        """
        total = self.alpha + self.beta
        g = (self.alpha * self.a / (self.beta * self.b)) ** (1.0 / total)
        n = g * (flop / TRAIN) ** (self.beta / total)
        return n, flop / (TRAIN * n)

    def interval(self, flop: float) -> tuple[float, float]:
        """Between which parameters the optimum lies with 80 %: the exponents within their standard
        errors, while the losses at CENTRE stay as they are; and the irreducible loss within its
        own, which the two other terms take up, each by a half.
        """
        n, d = self.optimum(flop)
        total = self.alpha + self.beta
        # of ln(alpha A N^-alpha) and ln(beta B D^-beta), by their exponents
        by_alpha = 1.0 / self.alpha - math.log(n / CENTRE[0])
        by_beta = 1.0 / self.beta - math.log(d / CENTRE[1])
        at_centre = (self.a / CENTRE[0] ** self.alpha, self.b / CENTRE[1] ** self.beta)
        terms = (0.5 * self.e_error / term for term in at_centre)
        parts = (self.error * by_alpha, self.error * by_beta, *terms)
        spread = Z80 * math.hypot(*parts) / total
        return n * math.exp(-spread), n * math.exp(spread)

    def loss_interval(self, parameters: float, tokens: float) -> tuple[float, float]:
        """Between which losses a model lies with 80 %: the exponents within their standard errors,
        while the losses at CENTRE stay as they are, and the irreducible loss within its own. Noise
        of a run, and data unlike those of the law, are not in it.

        >>> low, high = REFIT.loss_interval(7e10, 1.4e12)
        >>> low < REFIT.loss(7e10, 1.4e12) < high
        True
        """
        by_size = self.a / parameters**self.alpha * math.log(parameters / CENTRE[0])
        by_data = self.b / tokens**self.beta * math.log(tokens / CENTRE[1])
        parts = (self.error * by_size, self.error * by_data, self.e_error)
        loss, spread = self.loss(parameters, tokens), Z80 * math.hypot(*parts)
        return loss - spread, loss + spread


REFIT = Law("Besiroglu et al. 2024", 1.8172, 482.01, 2085.43, 0.3478, 0.3658, 0.02, 0.03)
PRINTED = Law("Hoffmann et al. 2022 as printed (refuted)", 1.69, 406.4, 410.7, 0.34, 0.28, 0.0, 0.0)
