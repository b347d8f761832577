"""What simulators share: volumes, tasks, faults, accounts."""
