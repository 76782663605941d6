"""Parts of pack building: layout, objective, annealing, lower bound, parallel groups, incremental building."""
