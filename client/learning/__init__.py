"""How patients teach: the training page, lessons, views, teacher, losses, noise and evaluation."""
