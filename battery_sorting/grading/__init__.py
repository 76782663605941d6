"""From measurement to packs: grades, groups and packs of cells."""
