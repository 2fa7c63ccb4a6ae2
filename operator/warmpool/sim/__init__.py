"""A Nova that can be trusted to misbehave: in process, or over HTTP for unmodified clients.

`spec` what a simulated cloud is made of, `scenarios` named ones. `nova` is the core: synchronous,
with its time and its chance handed in. `cloud` is the core as `ports.cloud.Cloud`, `http` the core
as Keystone, Nova, Glance, Placement and a little Neutron. `faults` what can be made to go wrong.
"""
