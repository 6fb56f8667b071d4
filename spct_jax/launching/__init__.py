"""From a laptop to slices: what launchers start, and how GKE, TPU VMs and a rehearsal on this machine are asked for it."""
