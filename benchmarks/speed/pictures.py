"""Pictures of the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..curves import INK, new_figure, write
from .aims import Result, of, per_token
from .jobs import CELLS, DROPPED, IN_LOOP, POLICIES
from .timing import median, ratio


def pictures(results: Sequence[Result], folder: Path) -> list[Path]:
    """Draw what there is to draw, as PNGs."""
    drawn = [_draw_growth(results, folder / "speed-growth.png")]
    drawn.append(_draw_torch(results, folder / "speed-torch.png"))
    return [path for path in drawn if path is not None]


def _draw_growth(results: Sequence[Result], path: Path) -> Path | None:
    jobs = list(of(results, "growth", keeps_memory=False))
    if not jobs:
        return None
    figure, axes = new_figure(nrows=1, ncols=2, figsize=(9, 4), sharey=True)
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
                colour = INK if name == "stock" else f"C{names.index(name)}"
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
    names = [name for name in POLICIES if any(job.policies == (name,) for job, _ in jobs)]
    cells = [cell for cell in CELLS if any(job.cell == cell for job, _ in jobs)]
    figure, axes = new_figure(
        nrows=1, ncols=len(cells), figsize=(5 * len(cells), 4.4), squeeze=False, sharey=True
    )
    for cell, where in zip(cells, axes[0], strict=True):
        for job, found in jobs:
            if job.cell != cell:
                continue
            (policy,) = job.policies
            number = shapes.index(job.shape)
            place = names.index(policy) + 0.1 * (number - (len(shapes) - 1) / 2)
            baseline = "stock" if policy in IN_LOOP else DROPPED
            middle, low, high = ratio(found[policy], found[baseline])
            spread = [[middle - low], [high - middle]]
            where.errorbar(
                middle, place, xerr=spread, fmt="o" if policy in IN_LOOP else "s", markersize=4,
                color=f"C{number}",
            )  # fmt: skip
        where.axvline(1.0, color=INK, linewidth=1)
        where.set(title=cell, xlabel="training step ÷ PyTorch's layer")
        where.set_yticks(range(len(names)), names)
        where.set_xlim(left=0)
        where.grid(alpha=0.3, axis="x")
    axes[0][0].invert_yaxis()
    marks = [("s", INK, "÷ with the same dropout"), ("o", INK, "÷ without dropout")]
    marks += [("", f"C{n}", str(shape)) for n, shape in enumerate(shapes)]
    handles = [
        plt.Line2D([], [], linestyle="", marker=mark or "o", color=colour, label=label)
        for mark, colour, label in marks
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize="small")
    return write(figure, path)
