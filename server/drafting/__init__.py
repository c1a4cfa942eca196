"""From what a study is about to a whole plan: recipes, and every number that follows from others."""
