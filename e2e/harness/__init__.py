"""What the journeys stand on: a cluster, a cloud, operators as processes, a namespace per test."""
