"""Colours of classes and of differences, told apart by colour-blind people too.

The eight of Okabe and Ito (2008, "Color Universal Design") without black, then the same darker and lighter. Differences
are also told apart by their pattern.
"""

from __future__ import annotations

from typing import Final

Rgb = tuple[int, int, int]

OKABE_ITO: Final[tuple[Rgb, ...]] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
)
SHADES: Final = (1.0, 0.6, 1.4)

RIGHT: Final[Rgb] = (0, 114, 178)
FOUND_ONLY: Final[Rgb] = (230, 159, 0)
LABELLED_ONLY: Final[Rgb] = (213, 94, 0)
OTHER_CLASS: Final[Rgb] = (240, 228, 66)


def class_colour(position: int) -> Rgb:
    """Of the class at this position of the baseline; they repeat after 21.

    >>> class_colour(0), class_colour(7)
    ((0, 114, 178), (0, 68, 106))
    """
    shade = SHADES[position // len(OKABE_ITO) % len(SHADES)]
    red, green, blue = (min(255, int(part * shade)) for part in OKABE_ITO[position % len(OKABE_ITO)])
    return red, green, blue


def css(colour: Rgb) -> str:
    """As ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
