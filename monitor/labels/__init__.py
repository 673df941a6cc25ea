"""Annotation exports, read to label records: one file a format, listed in ``formats.FORMATS``.

    export on disk --a format's reader--> Draft (entry, record) --checked, all of them--> records of segwatch.label.v1

A record that comes out of here passes ``monitor.records.decode`` as it stands, whether it then goes to Kafka, to a
file or to the store. An export is taken whole or refused whole.
"""

from monitor.labels.formats import FORMATS, Format, detect_format, read_labels
from monitor.labels.records import InputIdRule

__all__ = ["FORMATS", "Format", "InputIdRule", "detect_format", "read_labels"]
