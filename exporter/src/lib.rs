//! Metric families, collection and the HTTP endpoint that Prometheus scrapes.
