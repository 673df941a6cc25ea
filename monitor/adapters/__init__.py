"""What inference servers already log, turned into prediction records.

    line --Adapter--> Exchange (request, response, event) --Mapping--> prediction record
         kserve.py                                        mapping.py, recording.py
         seldon.py, mlserver.py, sagemaker.py

An adapter is one file and one line in ``ADAPTERS``: it knows how a server writes its log and which request belongs to
which response. What a model's tensors mean is not in any log; the mapping says it, the same way for all adapters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from monitor.adapters.kserve import KServe
from monitor.adapters.mlserver import MLServer
from monitor.adapters.protocol import Adapter
from monitor.adapters.sagemaker import SageMaker
from monitor.adapters.seldon import Seldon

ADAPTERS: Final[dict[str, Callable[[bool], Adapter]]] = {
    "kserve": KServe,
    "seldon": Seldon,
    "mlserver": MLServer,
    "sagemaker": SageMaker,
}
"""Each made with whether records need the request as well as the response."""

__all__ = ["ADAPTERS", "Adapter"]
