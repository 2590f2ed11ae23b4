"""Image classification and semantic segmentation."""
