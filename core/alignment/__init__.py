"""What people liked, into a better model: examples, losses, training, adapters.

See README.md beside this file.
"""
