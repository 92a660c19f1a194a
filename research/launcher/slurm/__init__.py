"""Runs as jobs of a Slurm cluster, through submitit: what one may ask for, what a job does, how it stands."""
