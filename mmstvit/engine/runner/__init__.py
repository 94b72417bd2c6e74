"""Prepare a run of any OpenMMLab config: check and change the config, build the model and the runner."""
