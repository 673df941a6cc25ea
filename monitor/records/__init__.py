"""Records: what comes in over Kafka or from files, decoded, checked, and never believed before that.

    RawRecord --payload_of--> Payload --msgspec--> Prediction | Label --checks--> the same, or BadRecord
              cloudevents.py             types.py                      checks.py, masks.py

Images and semantic maps are decoded later, in the pipeline's thread pool (``decode_semantic``, ``fetch_image``).
"""

from monitor.records.checks import Limits, check_map_size
from monitor.records.decoding import decode, decode_chunk
from monitor.records.reasons import REASONS
from monitor.records.semantic import decode_semantic, semantic_summary
from monitor.records.types import (
    LABEL_TYPE,
    PREDICTION_TYPE,
    Image,
    Instance,
    Label,
    LabelInstance,
    Model,
    Prediction,
    Record,
    Semantic,
)
from monitor.records.uris import fetch_image

__all__ = [
    "LABEL_TYPE",
    "PREDICTION_TYPE",
    "REASONS",
    "Image",
    "Instance",
    "Label",
    "LabelInstance",
    "Limits",
    "Model",
    "Prediction",
    "Record",
    "Semantic",
    "check_map_size",
    "decode",
    "decode_chunk",
    "decode_semantic",
    "fetch_image",
    "semantic_summary",
]
