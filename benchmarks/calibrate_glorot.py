"""Measure spectral radii of Gaussian matrices: constants of calibrated_glorot, table and figure.

    python -m benchmarks.calibrate_glorot

prints the constants that `lru.layers.glorot.CALIBRATION` should hold, and rewrites the
tables in docs/initialization.md and docs/images/spectral_radius.png. About six minutes on
one core; set OPENBLAS_NUM_THREADS=1 where cores are shared.
"""

from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import curve_fit

from lru.layers.glorot import (
    CALIBRATION,
    RESCALED_SMALLEST_WIDTH,
    calibrated_glorot_divisor,
    rescaled_glorot_divisor,
)
from lru.layers.initializers import MATRIX_INITIALIZERS

DOCS = Path(__file__).parents[1] / "docs"
SEED = 0
# calibrated_glorot divides by the mean radius plus this many standard deviations.
DEVIATIONS = 3
CALIBRATION_DRAWS = {
    1: 200_000,
    2: 200_000,
    3: 200_000,
    4: 100_000,
    6: 60_000,
    8: 40_000,
    12: 20_000,
    16: 15_000,
    24: 8_000,
    32: 6_000,
    48: 4_000,
    64: 3_000,
    96: 2_000,
    128: 1_500,
    192: 800,
    256: 600,
    384: 400,
    512: 300,
    1024: 40,
}
TABLE_SEED = 1
TABLE_DRAWS = {8: 10_000, 64: 2_000, 128: 1_000, 192: 500, 512: 200}
CHOICE_WIDTHS = (8, 64, 192)
LAYERS = 6
COLOURS = {
    "glorot": "#c44e52",
    "halved_glorot": "#8c8c8c",
    "rescaled_glorot": "#4c72b0",
    "calibrated_glorot": "#2a9d6f",
}


def divisor(rule: str, n: int) -> float:
    """Divisor of a glorot draw by a rule; nan where it is not defined."""
    if rule == "rescaled_glorot":
        return rescaled_glorot_divisor(n) if n >= RESCALED_SMALLEST_WIDTH else np.nan
    if rule == "calibrated_glorot":
        return calibrated_glorot_divisor(n)
    return {"glorot": 1.0, "halved_glorot": np.sqrt(2)}[rule]


def spectral_radius(matrices: np.ndarray) -> np.ndarray:
    """Largest modulus of the eigenvalues of each matrix of [draws, n, n]."""
    return np.abs(np.linalg.eigvals(matrices)).max(-1)


def radii_for_calibration(n: int, draws: int) -> np.ndarray:
    """Spectral radii of `draws` matrices N(0, 1/n), in chunks of bounded memory."""
    rng = np.random.default_rng([SEED, n])
    chunk = max(1, 400_000 // n**2)
    sizes = [min(chunk, draws - start) for start in range(0, draws, chunk)]
    return np.concatenate(
        [spectral_radius(rng.standard_normal((size, n, n)) / np.sqrt(n)) for size in sizes]
    )


def radii_of_package(n: int, draws: int) -> np.ndarray:
    """Spectral radii of `draws` matrices drawn by the package's own glorot."""
    keys = jax.random.split(jax.random.key(TABLE_SEED), draws)
    glorot = MATRIX_INITIALIZERS["glorot"]
    return np.concatenate(
        [spectral_radius(np.asarray(glorot(key, n), np.float64)[None]) for key in keys]
    )


def excess(n: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    """(m - 1) sqrt(n), the form of `calibrated_glorot_divisor`."""
    root = np.sqrt(np.log(a + b * n))
    return (root + c / root) / 2


def fit(radii: dict[int, np.ndarray]) -> tuple[float, ...]:
    """Constants (a, b, c) by weighted least squares on mean plus DEVIATIONS standard deviations.

    The error of that sum is about sqrt((1 + DEVIATIONS^2 / 2) / draws) standard deviations; none
    is taken to be below 3 %, as a closer match at the small widths with many draws is of no use.
    """
    n = np.array(list(radii), float)
    deviation = np.array([r.std() for r in radii.values()])
    goal = np.array([r.mean() for r in radii.values()]) + DEVIATIONS * deviation
    draws = np.array([r.size for r in radii.values()])
    error = deviation * np.sqrt((1 + DEVIATIONS**2 / 2) / draws + 0.03**2)
    constants, _ = curve_fit(
        excess, n, (goal - 1) * np.sqrt(n), (4.0, 0.05, 3.0), sigma=error * np.sqrt(n)
    )
    misfit = (1 + excess(n, *constants) / np.sqrt(n) - goal) / deviation
    print("misfit in standard deviations of the radius, beside its standard error:")
    for row in zip(radii, misfit, error / deviation, strict=True):
        print("n = {:4d}: {:+.3f}, {:.3f}".format(*row))
    return tuple(float(f"{constant:.4g}") for constant in constants)


def choice_table(radii: dict[int, np.ndarray]) -> str:
    """Results of dividing by mean plus 1, 2, 3 deviations, over the calibrating draws.

    By width: mean radius; steps after which it has forgotten all but 1/e; share of draws above
    one; share of models with a layer above one.
    """
    lines = [
        "| n | deviations | mean radius | memory in steps | draws above one | "
        f"models of {LAYERS} layers with one above one |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for n in CHOICE_WIDTHS:
        for deviations in (1, 2, 3):
            r = radii[n] / (radii[n].mean() + deviations * radii[n].std())
            above = np.mean(r > 1)
            lines.append(
                f"| {n} | {deviations} | {r.mean():.3f} | {-1 / np.log(r.mean()):.0f} | "
                f"{100 * above:.1f} % | {100 * (1 - (1 - above) ** LAYERS):.0f} % |"
            )
    return "\n".join(lines)


def table(radii: dict[int, np.ndarray]) -> str:
    """Mean, 95 % quantile and share above one of the radius under every rule, as Markdown."""
    lines = [
        "| n | draws | " + " | ".join(f"`{rule}`" for rule in COLOURS) + " |",
        "| ---: | ---: |" + " :---: |" * len(COLOURS),
    ]
    for n, glorot in radii.items():
        cells = []
        for rule in COLOURS:
            r = glorot / divisor(rule, n)
            cells.append(
                "not defined"
                if np.isnan(r).any()
                else f"{r.mean():.3f} / {np.quantile(r, 0.95):.3f} / {100 * np.mean(r > 1):.1f} %"
            )
        lines.append(f"| {n} | {glorot.size:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw_figure(radii: dict[int, np.ndarray], path: Path) -> None:
    """Draw the mean radius under each rule against the width, two of them with a band.

    The bands reach from the mean up by DEVIATIONS standard deviations; between the measured widths
    mean and deviation are interpolated in log n.
    """
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.axhline(1, color="black", linewidth=0.8)
    measured = np.log(list(radii))
    for rule, colour in COLOURS.items():
        first = RESCALED_SMALLEST_WIDTH if rule == "rescaled_glorot" else 4
        widths = np.unique(np.geomspace(first, max(radii), 300).astype(int))
        scale = np.array([divisor(rule, int(n)) for n in widths])
        mean, deviation = (
            np.interp(np.log(widths), measured, values) / scale
            for values in ([r.mean() for r in radii.values()], [r.std() for r in radii.values()])
        )
        axes.plot(widths, mean, color=colour, linewidth=1.8, label=rule)
        if rule in ("glorot", "calibrated_glorot"):
            band = (mean, mean + DEVIATIONS * deviation)
            axes.fill_between(widths, *band, color=colour, alpha=0.14, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(2 ** np.arange(2, 11), [str(2**k) for k in range(2, 11)])
    axes.minorticks_off()
    axes.set(xlim=(4, 1024), ylim=(0.4, 1.6), xlabel="width n", ylabel="spectral radius")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=2, loc="upper right")
    figure.savefig(path, dpi=150)


def put_in_page(name: str, text: str) -> None:
    """Replace what stands between the marks of that name in the page."""
    page = DOCS / "initialization.md"
    start, end = f"<!-- {name} -->", f"<!-- end of the {name} -->"
    before, rest = page.read_text().split(start)
    _, after = rest.split(end)
    page.write_text(f"{before}{start}\n{text}\n{end}{after}")


def main() -> None:
    """Measure, fit, write."""
    radii = {n: radii_for_calibration(n, draws) for n, draws in CALIBRATION_DRAWS.items()}
    print(f"fitted CALIBRATION = {fit(radii)}; the package holds {CALIBRATION}")
    draw_figure(radii, DOCS / "images" / "spectral_radius.png")

    put_in_page("table of deviations", choice_table(radii))
    of_package = {n: radii_of_package(n, draws) for n, draws in TABLE_DRAWS.items()}
    put_in_page("table of spectral radii", table(of_package))


if __name__ == "__main__":
    main()
