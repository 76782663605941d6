"""Options of the commands that start or check a site."""

from __future__ import annotations

from typing import Annotated

import typer

SiteOption = Annotated[str, typer.Option("--site", help="Name of a site in config/sites, or a file.")]
RecipeOption = Annotated[
    str | None, typer.Option("--recipe", help="Name of a recipe in config/recipes, or a file; else the site's.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting of the site, or with recipe.KEY=VALUE of the recipe."
    ),
]
