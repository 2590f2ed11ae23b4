"""Checks of patch sizes and resolutions against the samples of a workload.

Each raises ``ValueError``; the message names field, value and what is allowed.
"""

from __future__ import annotations


def check_texts(
    kind: str, length: int, patch: int, resolution: int | None, *, is_pooled: bool
) -> None:
    """Check the patch size and the tokens that are read of texts of ``length`` tokens."""
    if patch != 1:
        raise ValueError(f"patch_size must be 1 for {kind}, got {patch}")
    if resolution is None:
        return
    if not is_pooled:
        raise ValueError(f"resolution must be null for {kind}, got {resolution}")
    if resolution >= length:
        raise ValueError(
            f"resolution must be below the {length} tokens of a text, for which null stands, got "
            f"{resolution}"
        )


def check_recordings(kind: str, n_frames: int, patch: int, resolution: int | None) -> None:
    """Check patches that are as high as all bands of recordings."""
    if resolution is not None:
        raise ValueError(f"resolution must be null for {kind}, got {resolution}")
    if n_frames % patch:
        raise ValueError(f"patch_size must divide the recording's {n_frames} frames, got {patch}")


def check_images(height: int, width: int, patch: int, resolution: int | None) -> None:
    """Check square patches of images, which may be shrunk to ``resolution`` first."""
    if resolution is not None:
        if resolution >= height:
            raise ValueError(
                f"resolution must be below the image's height of {height} pixels, for which null "
                f"stands, got {resolution}"
            )
        if resolution * width % height:
            raise ValueError(
                f"resolution must keep the proportions of the image's {height}x{width} pixels in "
                f"whole numbers, got {resolution}"
            )
        height, width = resolution, resolution * width // height
    if height % patch or width % patch:
        raise ValueError(
            f"patch_size must divide the image's {height}x{width} pixels, got {patch}"
        )
