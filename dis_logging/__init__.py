"""Ship Python log records to Huawei Cloud DIS."""

__version__ = "0.1.0"
