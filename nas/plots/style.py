"""What all pictures share: size, colours, how joules are written, how files are saved.

Pictures are as wide as a column of a two-column paper, and their text is no smaller than such a
paper's captions. Colours are Okabe and Ito's, told apart by colour-blind readers; whatever a
colour says, a shape, a hatch or a word says as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.core.files import write_atomic
from nas.core.units import format_joules

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
YELLOW, SKY, GREY, BLACK = "#E69F00", "#56B4E9", "#7F7F7F", "#000000"
ENDINGS = (".png", ".svg", ".pdf")
COLUMN_IN = 3.3
# In legends, of the arrow heads at the frame.
CUT = "bar goes on beyond the frame"
_DPI = 300
_FONT: Any = {
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    # Text stays text, for search and for screen readers.
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


def check_ending(path: Path) -> None:
    """Refuse a path of no image format.

    Raises:
        ValueError: the ending is another.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"plot must end in {', '.join(ENDINGS)}, got {path}")


@contextmanager
def drawing(path: Path, height_in: float) -> Iterator[Any]:
    """A figure to draw into, saved to ``path`` at the end, whole or not at all.

    Raises:
        ValueError: the ending is of no image format, or the file cannot be written.
    """
    check_ending(path)
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ending = path.suffix.lower()[1:]
    # Nothing of when it was made, so that the same run gives the same file.
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[ending]
    with rc_context(_FONT):
        figure = Figure(figsize=(COLUMN_IN, height_in), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        _show_as_text(figure)
        try:
            write_atomic(
                path, lambda part: figure.savefig(part, dpi=_DPI, format=ending, metadata=undated)
            )
        except OSError as error:
            raise ValueError(f"plot {path} must be writable: {error.strerror}") from None


def _show_as_text(figure: Any) -> None:
    """Have names in titles, labels and legends shown as they are: a ``$`` begins no formula."""
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        if axes.get_legend() is not None:
            texts += axes.get_legend().get_texts()
    for text in texts:
        text.set_parse_math(False)


def joule_axis(axis: Any, span: float) -> None:
    """Write a logarithmic axis in joules; ``span`` is the ratio of its ends."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: format_joules(value)))
    if span < 30:
        # Decades alone would leave the axis almost bare.
        axis.set_minor_locator(LogLocator(subs=(2.0, 5.0) if span > 6 else (2.0, 3.0, 5.0, 7.0)))
        axis.set_minor_formatter(FuncFormatter(lambda value, _: format_joules(value)))
    else:
        axis.set_minor_formatter(NullFormatter())


@dataclass(frozen=True, slots=True)
class Bars:
    """A point with the ends of its two error bars, in the units of its axes."""

    x: float
    y: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float


def draw_bars(
    axes: Any,
    points: Sequence[Bars],
    *,
    color: str,
    marker: str,
    size: float,
    label: str,
    zorder: float = 2,
) -> None:
    """Draw points with both bars into axes whose limits are set.

    A bar that goes on beyond the frame ends there in an arrow head, so that it is not taken for
    a shorter one.
    """
    if not points:
        return
    left, right = sorted(axes.get_xlim())
    bottom, top = sorted(axes.get_ylim())
    axes.errorbar(
        [p.x for p in points],
        [p.y for p in points],
        xerr=[
            [p.x - max(p.x_low, left) for p in points],
            [min(p.x_high, right) - p.x for p in points],
        ],
        yerr=[
            [p.y - max(p.y_low, bottom) for p in points],
            [min(p.y_high, top) - p.y for p in points],
        ],
        fmt=marker,
        color=color,
        markersize=size,
        linewidth=0,
        elinewidth=0.7,
        label=label,
        zorder=zorder,
    )
    heads = {
        "<": [(left, p.y) for p in points if p.x_low < left],
        ">": [(right, p.y) for p in points if p.x_high > right],
        "v": [(p.x, bottom) for p in points if p.y_low < bottom],
        "^": [(p.x, top) for p in points if p.y_high > top],
    }
    for head, ends in heads.items():
        if ends:
            axes.plot(
                *zip(*ends, strict=True),
                linestyle="none",
                marker=head,
                color=color,
                markersize=3.5,
                markeredgewidth=0,
                clip_on=False,
                label=CUT,
                zorder=zorder,
            )


def grid(axes: Any) -> None:
    """Faint lines at major ticks, and no frame at top and right."""
    axes.grid(visible=True, which="major", alpha=0.25, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Any, *, columns: int = 2) -> None:
    """One legend of all axes under the drawing, where it covers nothing."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(
        list(found.values()),
        list(found),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handletextpad=0.5,
        columnspacing=1.2,
    )
