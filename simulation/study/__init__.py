"""A simulated study from its scenario file to its report."""
