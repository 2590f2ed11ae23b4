"""Starting and resuming searches: preparation, recipes, search loop, energy account."""
