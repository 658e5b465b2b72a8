"""Types of numbers that users write into experiment files, with bounds that no honest value meets.

Whatever lies beyond them is a slip of the keyboard, and would cost a night, the memory of the machine or an overflow.
Every number of an experiment file has a lower and an upper bound: one of these, or one of its own.
"""

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=0, le=1_000_000)]
"""How often something is done."""
PositiveInt = Annotated[int, Field(ge=1, le=1_000_000)]
Few = Annotated[int, Field(ge=0, le=1000)]
"""How many there are of something of which a handful is usual, or which of them."""
PositiveFew = Annotated[int, Field(ge=1, le=1000)]
Label = Annotated[int, Field(ge=0, lt=2**16)]
ForegroundLabel = Annotated[Label, Field(ge=1)]
SourceLabel = Annotated[int, Field(gt=-(2**31), lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Length = Annotated[int, Field(ge=1, le=8192)]
"""Along an axis, in voxels."""
Distance = Annotated[int, Field(ge=0, le=8192)]
Units = Annotated[int, Field(ge=1, le=2**16)]
"""Width of a layer of a network."""
PatchesPerSide = Annotated[int, Field(ge=1, le=64)]

Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Percent = Annotated[float, Field(gt=0, le=100)]
Degrees = Annotated[float, Field(ge=0, le=180)]
PositiveFloat = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Millimetres = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Divisor = Annotated[float, Field(ge=1e-6, le=1e6)]
"""What something is divided by, in float32."""
Strength = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
"""How much noise, blur or change of contrast there is."""
Intensity = Annotated[float, Field(ge=-1e12, le=1e12)]
WidthMultiplier = Annotated[float, Field(gt=0, le=64)]
