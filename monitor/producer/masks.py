"""A mask as COCO's uncompressed run lengths."""

from __future__ import annotations

from typing import Any


def rle(mask: Any) -> dict[str, Any]:
    """``mask``: (H, W) numpy array, not 0 where the object is. Gives ``{"size": [h, w], "counts": [...]}``.

    Runs go down the columns, the first one counts zeros. Source: pycocotools, ``common/maskApi.h``.

    >>> import numpy as np
    >>> rle(np.array([[False, True], [True, True]]))
    {'size': [2, 2], 'counts': [1, 3]}

    Raises ValueError for another number of dimensions, or no pixel.
    """
    import numpy as np  # only who has masks as arrays has numpy anyway

    array = np.asarray(mask)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"expected a mask (H, W) with at least one pixel, got shape {array.shape}")
    column = (array != 0).ravel(order="F")
    edges = np.flatnonzero(column[1:] != column[:-1]) + 1
    counts = np.diff(edges, prepend=0, append=column.size).tolist()
    return {"size": list(array.shape), "counts": [0, *counts] if column[0] else counts}
