"""That no file of the site folder begins again unnoticed: what shows that one is lost, and whose decision goes on."""
