"""Super-resolution and restoration with Swin2SR."""
