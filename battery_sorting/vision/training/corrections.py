"""Label errors in the BatSort photographs, found by looking at them. They are left out of training and of figures.

Only pictures of that folder and name are meant: the data set reuses its numbers under other endings.
"""

from __future__ import annotations

from pathlib import Path

LEFT_OUT: dict[str, dict[str, str]] = {
    "Energizer_Li": {
        "3.jpeg": "Energizer Max Plus, an alkaline cell",
        "9.jpeg": "Energizer Max Plus, an alkaline cell",
        "11.jpeg": "Energizer Max Plus, an alkaline cell",
        "11.jpg": "Energizer Max Plus, an alkaline cell",
        "14.jpg": "Energizer Max Plus, an alkaline cell",
        "15.jpg": "Energizer Max Plus, an alkaline cell",
        "16.jpg": "Energizer Max Plus, an alkaline cell",
    },
    "Exell_Green": {
        "28.jpg": "a Li-ion 18650",
        "29.jpg": "a Li-ion 18650",
        "30.jpg": "a Li-ion 18650",
        "31.jpg": "a Li-ion 18650",
    },
    "Exell_Yellow": {"37.jpg": "a green Ni-Cd cell of another make"},
}


def is_left_out(picture: Path) -> bool:
    """Whether the picture, known by its folder and name, carries a wrong label."""
    return picture.name in LEFT_OUT.get(picture.parent.name, {})
