"""What annotation tools are given: one file a format, listed in ``formats.EXPORTS``.

    relabel queue, kept masks --\\
                                 >-- Item (an image's masks and why it was chosen) --a format's writer--> files
    labels in the store --------/

What is written here, `monitor.labels` reads again, mask for mask.
"""

from monitor.exports.formats import EXPORTS, ExportFormat
from monitor.exports.items import Item, MaskOf

__all__ = ["EXPORTS", "ExportFormat", "Item", "MaskOf"]
