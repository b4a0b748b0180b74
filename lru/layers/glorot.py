"""Numbers by which the rescaled Glorot rules divide, and the energy that a Glorot draw keeps.

`initializers.py` draws by them; `docs/initialization.md` says what they are worth.
"""

import math

import numpy as np

EULER_GAMMA = 0.5772156649015329

# The smallest width at which gamma_n of rescaled_glorot is positive, as its square root needs.
RESCALED_SMALLEST_WIDTH = 164

# The fit (a, b, c) of calibrated_glorot_divisor to the mean plus three standard deviations of the
# spectral radius of N(0, 1/n) matrices, as measured by benchmarks/calibrate_glorot.py:
# 19 widths n from 1 (200,000 draws) to 512 (300) and 1024 (40), seed 0; largest misfit from n = 2
# on 0.11 standard deviations of the radius, which is the error of the measurement.
CALIBRATION = (4.249, 0.04092, 2.768)


def rescaled_glorot_divisor(n: int) -> float:
    """Number by which rescaled_glorot divides glorot (arXiv 2505.19827).

    m = 1 + sqrt(gamma_n / 4n) + (gamma_E + pi/sqrt 6) / sqrt(4 gamma_n n), where
    gamma_n = ln(n / (2 pi ln^2 n)): the limiting edge of the spectrum, plus the mean and one
    standard deviation of its Gumbel fluctuation.

    Raises:
        ValueError: if gamma_n is not positive at width n.
    """
    check_width(n)
    if n < RESCALED_SMALLEST_WIDTH:
        raise ValueError(
            f"rescaled_glorot (fixed) is not defined at width n = {n}: the smallest width that its "
            f"formula allows is {RESCALED_SMALLEST_WIDTH}; use calibrated_glorot, which is defined "
            "at every width"
        )
    gamma = math.log(n / (2 * math.pi * math.log(n) ** 2))
    fluctuation = EULER_GAMMA + math.pi / math.sqrt(6)
    return 1 + math.sqrt(gamma / (4 * n)) + fluctuation / math.sqrt(4 * gamma * n)


def calibrated_glorot_divisor(n: int) -> float:
    """Number by which calibrated_glorot divides glorot: mean plus three deviations of its radius.

    m = 1 + (sqrt L + c / sqrt L) / sqrt(4n) with L = ln(a + b n) and the measured constants
    `CALIBRATION`: the edge of the spectrum and its fluctuation as in `rescaled_glorot_divisor`,
    with an L in place of gamma_n that is positive at every width and has the same limit ln n.

    Raises:
        ValueError: if n is less than 1.
    """
    check_width(n)
    a, b, c = CALIBRATION
    root = math.sqrt(math.log(a + b * n))
    return 1 + (root + c / root) / math.sqrt(4 * n)


def log_glorot_energy(n: int, steps: int) -> float:
    """Logarithm of the energy that n × n matrices of complex N(0, 1/n) keep over so many steps.

    Q_{n,k} = E |A^k x|^2 / |x|^2 after k steps (the setting of arXiv 2605.05113) is

        Q_{n,k} = [(n+k+1)! / (n-1)! - n! / (n-k-2)!] / ((k+1) (k+2) n^(k+1)),

    the second term being 0 from k = n - 1 on: 1 while k is far below sqrt n,
    sinh(c^2 / 2) / (c^2 / 2) at k = c sqrt n, and beyond that ever more the energy of the few draws
    that explode. Taken in logarithms, without a difference of large numbers.

    Args:
        n: width.
        steps: k, from 0 on.

    Raises:
        ValueError: if n is less than 1 or the number of steps negative.
    """
    check_width(n)
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    # Both terms over n^(k+2) are products, of 1 + j/n and of 1 - j/n with j up to k + 1.
    j = np.arange(steps + 2) / n
    factor = math.log(n / ((steps + 1) * (steps + 2)))
    if steps + 1 >= n:
        return factor + float(np.log1p(j).sum())
    half = float(np.arctanh(j).sum())
    product = float(np.log1p(-(j**2)).sum()) / 2
    return factor + product + half + math.log(-math.expm1(-2 * half))


def length_glorot_divisor(n: int, length: int) -> float:
    """Number by which length_glorot divides glorot: m = Q_{n,T}^(1/2T), which makes Q_{n,T} one.

    Args:
        n: width.
        length: steps T, at least 1.

    Raises:
        ValueError: if n or the length is less than 1.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    return math.exp(log_glorot_energy(n, length) / (2 * length))


def check_width(n: int) -> None:
    """Refuse a width below 1.

    Raises:
        ValueError: if it is.
    """
    if n < 1:
        raise ValueError(f"width n = {n} is not allowed: at least 1 is needed")
