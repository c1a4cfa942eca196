"""One attempt at a round: cohort, stages, exchange with the sites, orders and retries."""
