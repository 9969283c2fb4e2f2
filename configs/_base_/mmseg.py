# What every segmentation configuration shares.
_base_ = ["mmseg::_base_/default_runtime.py"]

custom_imports = dict(imports=["tasks.segmentation.registered"], allow_failed_imports=False)
