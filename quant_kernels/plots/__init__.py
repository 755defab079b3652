"""The course's pictures, each of plain data, on Axes of one's own or on new ones; nothing else loads matplotlib.

They are drawn for a notebook, 700 pixels wide, on a page that is light or dark: no background, grey text, and those of
the colours of Okabe and Ito (2008), which the colour-blind tell apart, that stand out from white and from JupyterLab's
dark page. Marker shapes say again what colours say.
"""

from .blocks import block_bits
from .channels import outliers_per_channel
from .quality import error_against_bits, pareto_front, perplexity_against_size
from .rooflines import roofline

__all__ = [
    "block_bits",
    "error_against_bits",
    "outliers_per_channel",
    "pareto_front",
    "perplexity_against_size",
    "roofline",
]
