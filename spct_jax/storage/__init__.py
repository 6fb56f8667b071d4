"""Where bytes are kept: paths on this machine and in buckets, files that are complete or absent, and who may write them."""
