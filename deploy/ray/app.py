"""The Serve application: `deploy.ray.app:build`, for `serve run`, a Serve config file, or KubeRay.

Adapters are never part of it: replicas follow the root, so that a new version restarts nothing.
"""

from __future__ import annotations

from typing import Any

from deploy.ray.door import RetryProxy
from deploy.ray.options import RayOptions
from deploy.ray.replica import RayReplica

HEALTH_PERIOD_SECONDS = 1.0
"""Ray replaces a replica after three failed checks: within seconds the others have all the traffic."""


def build(options: RayOptions) -> Any:
    """Return the application: doors bound to replicas."""
    from ray import serve

    replica = serve.deployment(
        RayReplica,
        name="RayReplica",
        num_replicas=options.replicas,
        max_ongoing_requests=options.max_ongoing,
        health_check_period_s=HEALTH_PERIOD_SECONDS,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=options.stop_seconds + options.drain_seconds,
        ray_actor_options={"num_cpus": options.cpus_per_replica, "num_gpus": options.gpus_per_replica},
    )
    door = serve.deployment(
        RetryProxy,
        name="RetryProxy",
        num_replicas=options.doors,
        # A door costs no slot of its own: in a rolling restart the new one is there before the old one goes.
        max_surge_percent=100,
        max_ongoing_requests=4 * options.max_ongoing * options.replicas,
        graceful_shutdown_timeout_s=options.stop_seconds + options.drain_seconds,
        ray_actor_options={"num_cpus": 0},
    )
    return door.bind(options, replica.bind(options))
