"""Instance segmentation with EoMT: a mask for every object."""
