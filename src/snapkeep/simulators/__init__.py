"""Stand-alone simulators of storage systems: real HTTP, real files, real state."""
