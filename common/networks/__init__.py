"""The networks a study plan can name: small enough for private training, free of anything that crosses patients.

Every network here takes one grey channel, normalises with GroupNorm only (BatchNorm mixes patients), changes nothing in
place, has no dropout and pads with zeros; ``common.networks.suitability`` says why and checks it.
"""
