"""An architecture: blocks from the input up, as wide as they are, coloured by precision."""

from __future__ import annotations

import textwrap

from nas.charts.blocks import Block, blocks_of
from nas.charts.chart import COLOURS, Axis, Chart, Mark, Series, Text, box
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

_MOST_BLOCKS = 40
# The frame in units of the widest block, to the left and right of the middle.
_LEFT, _RIGHT, _SIDE = 1.6, 2.6, 0.6
_CHARACTERS = 30


def architecture_chart(
    architecture: Architecture, workload: Workload | None, title: str, device: str
) -> Chart:
    """Return the blocks of an architecture; a band behind them is the residual stream.

    The input has its shape if ``workload`` is known.

    Raises:
        ValueError: there are too many different layers to draw.
    """
    blocks = blocks_of(architecture, device)
    if len(blocks) > _MOST_BLOCKS:
        raise ValueError(
            f"the plot must have at most {_MOST_BLOCKS} blocks that differ, got {len(blocks)}"
        )
    d_model, rows = architecture.d_model, len(blocks) + 2
    widest = max(d_model, *(block.width for block in blocks))
    patch = architecture.patch_size
    shape = "" if workload is None else f" of {'x'.join(map(str, workload.input_shape))}"
    patches = f"patches of {patch}, " if patch > 1 else ""
    texts = [
        *_beside(0, widest, f"embedding{shape}", f"{patches}{d_model} wide"),
        *_beside(rows - 1, widest, "norm and head", ""),
    ]
    for row, block in enumerate(blocks, 1):
        texts += _beside(row, widest, f"{block.label}, {block.precision}", block.detail)
        if row == 1 or blocks[row - 2].layer != block.layer:
            times = f" ×{block.repeats}" if block.repeats > 1 else ""
            texts.append(Text(-_SIDE * widest, row + 0.5, f"layer {block.layer}{times}", "end"))
    ends = tuple(_centred(d_model, row, 0.5) for row in (0, rows - 1))
    return Chart(
        title,
        Axis("", -_LEFT * widest, _RIGHT * widest),
        Axis("", 0, rows),
        (
            Series("stream", "", "box", (box(-d_model / 2, d_model / 2, 0.1, rows - 0.1),)),
            Series("end", "", "box", ends),
            *(
                Series(_role(block), "", "box", (_centred(block.width, row, 0.8),))
                for row, block in enumerate(blocks, 1)
            ),
        ),
        tuple(texts),
        height=(0.4 + 0.34 * rows) / 3.3,
        framed=False,
    )


def _role(block: Block) -> str:
    return block.precision if block.precision in COLOURS else "other"


def _centred(width: int, row: int, height: float) -> Mark:
    return box(-width / 2, width / 2, row + 0.5 - height / 2, row + 0.5 + height / 2)


def _beside(row: int, widest: int, name: str, detail: str) -> list[Text]:
    """Return the name and details to the right of a row."""
    details = textwrap.wrap(detail, _CHARACTERS)
    lines = len(details)
    return [
        Text(_SIDE * widest, row + 0.5 + 0.16 * lines, name),
        *(
            Text(_SIDE * widest, row + 0.5 + 0.16 * lines - 0.32 * n, text, soft=True)
            for n, text in enumerate(details, 1)
        ),
    ]
