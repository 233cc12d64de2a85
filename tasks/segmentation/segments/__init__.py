"""The parts that instance and panoptic segmentation share."""
