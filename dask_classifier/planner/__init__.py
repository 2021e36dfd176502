"""What a run will take, and where: a sample of its rows, a simulation of its blocks, the record of earlier runs.

May import everything but the command.
"""
