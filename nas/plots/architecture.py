"""An architecture drawn: blocks from the input up, as wide as they are, coloured by precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas.plots.blocks import Block
from nas.plots.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, SKY, YELLOW, drawing

# Colour and hatch by precision; the word stands beside each block as well.
STYLES = {
    "fp32": (GREY, ""),
    "bf16": (BLUE, ""),
    "int8": (ORANGE, "///"),
    "fp8": (GREEN, "..."),
    "int8wo": (YELLOW, "\\\\\\"),
    "int4wo": (PINK, "xxx"),
}
_OTHER = (SKY, "--")
_STREAM = "#E3E3E3"
_MOST_BLOCKS = 40


def plot_architecture(
    blocks: Sequence[Block], path: Path, *, title: str, d_model: int, ends: tuple[str, str]
) -> None:
    """Draw ``blocks`` into ``path``; a grey band behind them is the stream of ``d_model``.

    Args:
        blocks: From the input on; equal layers as one (``nas.plots.blocks``).
        path: Image file.
        title: What it is.
        d_model: Width of the stream that blocks read and add to.
        ends: What stands below the first block, and above the last.

    Raises:
        ValueError: there are too many different layers to draw, or the file cannot be written.
    """
    if len(blocks) > _MOST_BLOCKS:
        raise ValueError(
            f"the plot must have at most {_MOST_BLOCKS} blocks that differ, got {len(blocks)}"
        )
    widest = max(d_model, *(block.width for block in blocks))
    with drawing(path, 0.8 + 0.3 * (len(blocks) + 2)) as figure:
        from matplotlib.patches import Rectangle

        axes = figure.add_subplot()
        axes.add_patch(
            Rectangle((-d_model / 2, 0.1), d_model, len(blocks) + 1.8, color=_STREAM, zorder=0)
        )
        side = 0.6 * widest
        for row, text in ((0.25, ends[0]), (len(blocks) + 1.25, ends[1])):
            axes.add_patch(
                Rectangle(
                    (-d_model / 2, row), d_model, 0.5, facecolor="white", edgecolor=BLACK, lw=0.6
                )
            )
            axes.text(side, row + 0.25, text, va="center")
        axes.text(-side, 0.5, f"{d_model}", va="center", ha="right", color=BLACK)
        layer = None
        for index, block in enumerate(blocks):
            row = index + 1.1
            color, hatch = STYLES.get(block.precision, _OTHER)
            axes.add_patch(
                Rectangle(
                    (-block.width / 2, row),
                    block.width,
                    0.8,
                    facecolor=color,
                    edgecolor="white" if hatch else color,
                    hatch=hatch,
                    lw=0.0,
                    zorder=2,
                )
            )
            axes.text(side, row + 0.58, f"{block.label}, {block.precision}", va="center")
            axes.text(side, row + 0.2, block.detail, va="center", fontsize=6.5, color="#404040")
            if block.layer != layer:
                layer = block.layer
                times = f" ×{block.repeats}" if block.repeats > 1 else ""
                axes.text(-side, row + 0.4, f"layer {layer}{times}", va="center", ha="right")
        axes.set_xlim(-1.35 * widest, 2.1 * widest)
        axes.set_ylim(0, len(blocks) + 2)
        axes.set_axis_off()
        axes.set_title(title)
