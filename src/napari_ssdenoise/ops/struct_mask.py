"""Read the masks of structN2V: which neighbours share a pixel's noise."""

from __future__ import annotations

Offsets = tuple[tuple[int, ...], ...]


def parse_struct(text: str) -> Offsets:
    """Read a structN2V mask: rows of 0 and 1, separated by ``/``; planes by ``|``.

    ``"1111111"`` hides seven pixels along X, ``"1/1/1"`` three along Y, ``"010/111/010"`` a cross. Every side is
    odd, and the centre is the pixel to be predicted.

    Returns
    -------
    tuple of tuple of int
        Offsets (Z, Y, X) of the hidden neighbours, without the centre.

    Raises
    ------
    ValueError
        If the text is not such a mask.
    """
    planes = [plane.split("/") for plane in text.replace(" ", "").split("|")]
    sides = (len(planes), len(planes[0]), len(planes[0][0]))
    ragged = any(len(plane) != sides[1] or any(len(row) != sides[2] for row in plane) for plane in planes)
    strange = set(text) - set("01/| ")
    if ragged or strange or any(n % 2 == 0 for n in sides):
        raise ValueError(
            f"struct_mask {text!r} is not a mask. Write rows of 0 and 1, all of one odd length, an odd number of "
            "them separated by '/' (planes by '|'), e.g. '11111' for noise correlated along X or '1/1/1' along Y."
        )
    offsets = (
        (z - sides[0] // 2, y - sides[1] // 2, x - sides[2] // 2)
        for z, plane in enumerate(planes)
        for y, row in enumerate(plane)
        for x, value in enumerate(row)
        if value == "1"
    )
    return tuple(offset for offset in offsets if any(offset))
