"""The table of position encodings, by the values of ``model.positions``."""

from fedsi.models.positions.alibi import ALIBI
from fedsi.models.positions.encoding import Encoding
from fedsi.models.positions.fire import FIRE
from fedsi.models.positions.kerple import KERPLE
from fedsi.models.positions.learned import LEARNED
from fedsi.models.positions.rotary import ROTARY
from fedsi.models.positions.sinusoidal import SINUSOIDAL
from fedsi.models.positions.t5 import T5

ENCODINGS = {
    "none": Encoding(),
    "learned": LEARNED,
    "sinusoidal": SINUSOIDAL,
    "rotary": ROTARY,
    "alibi": ALIBI,
    "t5": T5,
    "kerple": KERPLE,
    "fire": FIRE,
}
"""``none`` leaves the causal mask as the only source of word order (Kazemnejad et al., arXiv
2305.19466).
"""
