"""Flower's own FedAvg on its own simulation runtime (Ray), as its documentation has it, to be measured against."""

import os
import time
from collections.abc import Iterable

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when Flower is imported
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import ray  # noqa: F401 (what is not installed is said before Flower ends the process)
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from numpy.typing import NDArray

site_app = ClientApp()


@site_app.train()
def answer(message: Message, _: Context) -> Message:
    """Give the model back as the update: nobody trains here."""
    content = RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})})
    return Message(content=content, reply_to=message)


class TimedFedAvg(FedAvg):
    """FedAvg that notes when each round's mean was there."""

    def __init__(self, sites: int) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
        self.ends: list[float] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average, and look at the clock."""
        found = super().aggregate_train(server_round, replies)
        self.ends.append(time.perf_counter())
        return found


def fedavg_rounds(sites: int, rounds: int, weights: NDArray[np.float32]) -> list[float]:
    """Run ``rounds`` rounds of ``sites`` sites; return when each ended, in seconds of ``time.perf_counter``.

    Raises: RuntimeError where Flower's runtime fails.
    """
    strategy, app = TimedFedAvg(sites), ServerApp()

    @app.main()
    def main(grid: Grid, _: Context) -> None:
        strategy.start(grid, initial_arrays=ArrayRecord([weights]), num_rounds=rounds)

    run_simulation(
        server_app=app,
        client_app=site_app,
        num_supernodes=sites,
        backend_config={"init_args": {"log_to_driver": False}},
    )
    return strategy.ends
