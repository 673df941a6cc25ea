"""Annotation exports, read to label records: one file a format, listed in ``formats.FORMATS``.

    export on disk --a format's reader--> Draft (entry, record) --checked, all of them--> records of segwatch.label.v1

A record that comes out of here passes ``monitor.records.decode`` as it stands, whether it then goes to Kafka, to a
file or to the store. An export is taken whole or refused whole.

Nothing is imported here: judging reads one of these files, and must not load the painters of all the others.
"""
