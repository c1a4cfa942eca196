"""The only door that faces the internet: ten paths of Flower's fleet API and two for encoders, for admitted sites."""
