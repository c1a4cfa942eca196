"""The only door that faces the internet: ten paths of Flower's fleet API, for admitted sites, and nothing else."""
