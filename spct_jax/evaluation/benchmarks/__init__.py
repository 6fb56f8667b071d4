"""What judges are measured on, one file each."""
