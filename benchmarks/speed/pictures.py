"""Pictures of the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..curves import write
from .aims import Result, of, per_token
from .jobs import CELLS, IN_LOOP
from .timing import median, ratio

DROPPED = "stock with dropout"


def pictures(results: Sequence[Result], folder: Path) -> list[Path]:
    """Draw what there is to draw, as PNGs."""
    import matplotlib

    matplotlib.use("Agg")
    drawn = [_draw_growth(results, folder / "speed-growth.png")]
    drawn.append(_draw_torch(results, folder / "speed-torch.png"))
    return [path for path in drawn if path is not None]


def _draw_growth(results: Sequence[Result], path: Path) -> Path | None:
    from matplotlib import pyplot as plt

    jobs = list(of(results, "growth", keeps_memory=False))
    if not jobs:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
    for axis, where in zip(("T", "B"), axes, strict=True):
        drawn = set()
        for job, found in jobs:
            for name in ("stock", *job.policies):
                if (job.cell, name) in drawn:
                    continue
                drawn.add((job.cell, name))
                times = per_token(job, axis, found[axis], name)
                style = "-" if job.cell == "LSTM" else "--"
                names = ["stock", *dict.fromkeys(j.policies[0] for j, _ in jobs)]
                colour = "0.4" if name == "stock" else f"C{names.index(name)}"
                where.loglog(
                    list(times),
                    [1e6 * median(each) for each in times.values()],
                    style,
                    color=colour,
                    marker="o",
                    markersize=3,
                    label=f"{job.cell}, {name}",
                )
        where.set(xlabel=f"{axis} ({'steps' if axis == 'T' else 'samples'})")
        where.grid(alpha=0.3, which="both")
    axes[0].set(ylabel="µs per token")
    axes[1].legend(fontsize="small")
    return write(figure, path)


def _draw_torch(results: Sequence[Result], path: Path) -> Path | None:
    from matplotlib import pyplot as plt

    jobs = list(of(results, "torch", compiled=True))
    if not jobs:
        return None
    shapes = list(dict.fromkeys(job.shape for job, _ in jobs))
    names = list(dict.fromkeys(job.policies[0] for job, _ in jobs))
    figure, axes = plt.subplots(
        1, len(shapes), figsize=(4.5 * len(shapes), 4), layout="constrained", squeeze=False
    )
    for shape, where in zip(shapes, axes[0], strict=True):
        for job, found in jobs:
            if job.shape != shape:
                continue
            (policy,) = job.policies
            place = names.index(policy) + (0.15 if job.cell == "GRU" else -0.15)
            colour = f"C{CELLS.index(job.cell)}"
            pairs = [(policy, "stock", "o") if policy in IN_LOOP else (policy, DROPPED, "s")]
            pairs += [("cell loop", "stock", "x")] if "cell loop" in found else []
            for name, baseline, marker in pairs:
                middle, low, high = ratio(found[name], found[baseline])
                spread = [[middle - low], [high - middle]]
                where.errorbar(middle, place, xerr=spread, fmt=marker, color=colour)
        where.axvline(1.0, color="0.5", linewidth=1)
        where.set(title=str(shape), xlabel="training step ÷ the stock layer's")
        where.set_yticks(range(len(names)), names)
        where.invert_yaxis()
        where.set_xlim(left=0)
        where.grid(alpha=0.3, axis="x")
    handles = [
        plt.Line2D([], [], linestyle="", marker=marker, color=colour, label=label)
        for marker, colour, label in (
            ("o", "C0", "LSTM"),
            ("o", "C1", "GRU"),
            ("o", "0.4", "÷ the stock layer"),
            ("s", "0.4", "÷ the stock layer with the same dropout"),
            ("x", "0.4", "a loop over cells ÷ the stock layer"),
        )
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize="small")
    return write(figure, path)
