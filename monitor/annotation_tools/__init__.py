"""CVAT's and Label Studio's REST interfaces, as far as labelling needs them."""
