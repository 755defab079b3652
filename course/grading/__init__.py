"""From what was handed in to scores in the gradebook: read, examined on Dask, recorded; again after a mended test."""
