//! Metric families (Prometheus names, base units).
