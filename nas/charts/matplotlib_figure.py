"""Charts drawn by matplotlib, at the width of a column of a two-column paper."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas.charts.chart import COLOURS, CUT, Chart, Series, Side
from nas.core.files import write_atomic

ENDINGS = (".png", ".svg", ".pdf")
_COLUMN_IN = 3.3
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
# Characters of a title that fit into the figure's width.
_TITLE = 48
_MARKERS = {"circle": ("o", 3.2), "square": ("s", 4.0), "diamond": ("D", 3.5), "ring": ("D", 7.0)}
# Paper behind a text that lies on a picture.
_TAG = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.6}
_HEADS: dict[Side, str] = {"left": "<", "right": ">", "bottom": "v", "top": "^"}


def check_ending(path: Path) -> None:
    """Refuse a path of no image format.

    Raises:
        ValueError: the ending is another.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"plot must end in {', '.join(ENDINGS)}, got {path}")


def save(charts: Sequence[Chart], path: Path) -> None:
    """Draw ``charts`` below each other into the image file ``path``, whole or not at all.

    Raises:
        ValueError: the ending is of no image format, or the file cannot be written.
    """
    check_ending(path)
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ending = path.suffix.lower()[1:]
    # Without a date the same run gives the same file.
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[ending]
    height_in = _COLUMN_IN * sum(chart.height for chart in charts)
    with rc_context(_FONT):
        figure = Figure(figsize=(_COLUMN_IN, height_in), layout="constrained")
        FigureCanvasAgg(figure)
        for chart, axes in zip(charts, figure.subplots(len(charts), squeeze=False), strict=True):
            _draw(chart, axes[0])
        _legend(figure)
        _show_as_text(figure)
        try:
            write_atomic(
                path, lambda part: figure.savefig(part, dpi=_DPI, format=ending, metadata=undated)
            )
        except OSError as error:
            raise ValueError(f"plot {path} must be writable: {error.strerror}") from None


def _draw(chart: Chart, axes: Any) -> None:
    axes.set_xlim(chart.x.low, chart.x.high)
    axes.set_ylim(chart.y.low, chart.y.high)
    axes.set_title("\n".join(textwrap.fill(line, _TITLE) for line in chart.title.splitlines()))
    axes.spines[["top", "right"]].set_visible(False)
    for picture in chart.pictures:
        axes.imshow(
            np.frombuffer(base64.b64decode(picture.pixels), np.uint8).reshape(
                picture.height, picture.width, 3
            ),
            extent=(picture.x_low, picture.x_high, picture.y_low, picture.y_high),
            aspect="equal",
            interpolation="nearest",
        )
    for layer, series in enumerate(chart.series, 2):
        if series.shape in ("box", "frame"):
            _draw_boxes(series, axes, layer)
        else:
            _draw_points(series, axes, layer)
    for text in chart.texts:
        axes.text(
            text.x,
            text.y,
            text.text,
            ha={"start": "left", "middle": "center", "end": "right"}[text.anchor],
            va="center",
            **({"fontsize": 6.5, "color": "#404040"} if text.soft else {}),
            **({"bbox": _TAG, "clip_on": True} if text.tag else {}),
        )
    if not chart.framed:
        axes.set_axis_off()
        return
    for axis, described in ((axes.xaxis, chart.x), (axes.yaxis, chart.y)):
        axis.set_ticks(*map(list, zip(*described.ticks, strict=True)))
        axis.set_label_text(described.label)
        if described.grid:
            axis.grid(visible=True, alpha=0.25, linewidth=0.5)


def _draw_points(series: Series, axes: Any, layer: int) -> None:
    color, marks = COLOURS[series.role].light, series.marks
    xs, ys = [m.x for m in marks], [m.y for m in marks]
    if series.line == "stairs":
        axes.step(xs, ys, where="post", color=color, linewidth=1.1, zorder=layer)
    elif series.line:
        axes.plot(xs, ys, color=color, linewidth=0.8, linestyle="--", zorder=layer)
    if series.shape == "tick":
        style = {"markersize": 6, "alpha": 0.7, "transform": axes.get_xaxis_transform()}
        axes.plot(xs, [0.03] * len(xs), "|", color=color, label=series.label, **style)
        return
    marker, size = _MARKERS.get(series.shape, ("none", 0.0))
    if series.shape == "ring":
        style = {"markerfacecolor": "none", "markeredgewidth": 1.1, "markersize": size}
        axes.plot(xs, ys, marker, color=color, label=series.label, zorder=layer, **style)
        return
    if series.line and not series.label:
        return
    axes.errorbar(
        xs,
        ys,
        xerr=[[m.x - m.x_low for m in marks], [m.x_high - m.x for m in marks]],
        yerr=[[m.y - m.y_low for m in marks], [m.y_high - m.y for m in marks]],
        fmt=marker,
        color=color,
        markersize=size,
        linewidth=0,
        elinewidth=0.7,
        label=series.label,
        zorder=layer,
    )
    for side, head in _HEADS.items():
        is_x = side in ("left", "right")
        ends = [
            (
                {"left": m.x_low, "right": m.x_high}.get(side, m.x),
                m.y if is_x else {"bottom": m.y_low, "top": m.y_high}[side],
            )
            for m in marks
            if side in m.cut
        ]
        if ends:
            style = {"linestyle": "none", "markersize": 3.5, "markeredgewidth": 0, "label": CUT}
            at = zip(*ends, strict=True)
            axes.plot(*at, marker=head, color=color, clip_on=False, zorder=layer, **style)


def _draw_boxes(series: Series, axes: Any, layer: int) -> None:
    colour = COLOURS[series.role]
    filled = colour.light if colour.fill == "solid" else "white"
    axes.barh(
        [m.y for m in series.marks],
        [m.x_high - m.x_low for m in series.marks],
        left=[m.x_low for m in series.marks],
        height=[m.y_high - m.y_low for m in series.marks],
        color="none" if series.shape == "frame" else filled,
        edgecolor=colour.light,
        hatch="////" if colour.fill == "hatched" else "",
        linewidth=1.1 if series.shape == "frame" else 0.7,
        label=series.label,
        zorder=layer,
    )


def _legend(figure: Any) -> None:
    """One legend of all axes under the drawing, where it covers nothing."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=2,
            frameon=False,
            handletextpad=0.5,
            columnspacing=1.2,
        )


def _show_as_text(figure: Any) -> None:
    """Show names as they are: a ``$`` in a title, label or legend begins no formula."""
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts, *ticks]
    for text in texts:
        text.set_parse_math(False)
