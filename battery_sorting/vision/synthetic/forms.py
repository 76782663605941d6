"""Length and diameter (mm) of the batteries that are drawn, and which type comes in which size."""

from __future__ import annotations

FORMS_MM = {"AA": (50.5, 14.5), "AAA": (44.5, 10.5), "D": (61.5, 34.2), "18650": (69.0, 18.6)}
TYPE_FORMS = {
    "Duracell_Alk": ("AA", "AAA", "D"),
    "Energizer_Alk": ("AA", "AAA"),
    "Energizer_Ind": ("AA", "AAA"),
    "Energizer_Li": ("AA", "AAA"),
    "Exell_Green": ("AA",),
    "Exell_Yellow": ("AA",),
    "GP_Alk": ("AA", "AAA"),
    "IKEA_Alk": ("AA", "AAA"),
    "Klarus": ("18650",),
}
