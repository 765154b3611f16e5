"""Models: the catalogue, their files, the download and the weights."""
