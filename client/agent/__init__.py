"""The agent: the one long-lived process of a hospital that sees scans and keys, and whose only network is loopback.

Importing anything of it silences Flower and demands the one version it was tested with, before Flower is imported.
"""

from common.flower.environment import require_flower, silence_flower

silence_flower()
require_flower()
