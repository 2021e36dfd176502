"""Runs that are driven from their scheduler's instance, without the computer that started them.

`handing_over.py` starts the driver there, `driver.py` is the driver, and `following.py` is what others see of it.
"""
